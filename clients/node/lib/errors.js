/** Errors of the server with their google.rpc details. */

import grpc from '@grpc/grpc-js';
import protobuf from 'protobufjs';
import { toMs } from './durations.js';

const field = (id, type, rule) => ({ id, type, ...(rule ? { rule } : {}) });

// The parts of google.rpc that the server sends.
const root = protobuf.Root.fromJSON({
  nested: {
    Duration: { fields: { seconds: field(1, 'int64'), nanos: field(2, 'int32') } },
    Any: { fields: { typeUrl: field(1, 'string'), value: field(2, 'bytes') } },
    Status: { fields: { code: field(1, 'int32'), message: field(2, 'string'), details: field(3, 'Any', 'repeated') } },
    ErrorInfo: { fields: { reason: field(1, 'string'), domain: field(2, 'string'), metadata: { keyType: 'string', type: 'string', id: 3 } } },
    FieldViolation: { fields: { field: field(1, 'string'), description: field(2, 'string') } },
    BadRequest: { fields: { fieldViolations: field(1, 'FieldViolation', 'repeated') } },
    RetryInfo: { fields: { retryDelay: field(1, 'Duration') } },
    RequestInfo: { fields: { requestId: field(1, 'string') } },
  },
});

export class TandemError extends Error {
  /** @param {grpc.ServiceError} cause */
  constructor(cause) {
    super(`${grpc.status[cause.code] ?? cause.code}: ${cause.details ?? cause.message}`, { cause });
    this.name = 'TandemError';
    /** gRPC status, a value of grpc.status. */
    this.code = cause.code;
    /** Stable and machine readable: INVALID_AUDIO, OVERLOADED, LIMIT_EXCEEDED ...; empty without details. */
    this.reason = '';
    /** @type {Record<string, string>} */
    this.metadata = {};
    /** @type {{field: string, description: string}[]} */
    this.violations = [];
    /** When to try again, milliseconds; undefined where the server did not say. */
    this.retryAfterMs = undefined;
    /** Finds the request in the server's log. */
    this.requestId = '';
    const [packed] = cause.metadata?.get('grpc-status-details-bin') ?? [];
    for (const detail of packed ? root.lookupType('Status').decode(packed).details : []) this.#read(detail);
  }

  #read({ typeUrl, value }) {
    const name = typeUrl.slice(typeUrl.lastIndexOf('.') + 1);
    if (!root.get(name)) return;
    const detail = root.lookupType(name).toObject(root.lookupType(name).decode(value), { longs: Number });
    if (name === 'ErrorInfo') Object.assign(this, { reason: detail.reason, metadata: detail.metadata ?? {} });
    if (name === 'BadRequest') this.violations = detail.fieldViolations ?? [];
    if (name === 'RetryInfo') this.retryAfterMs = toMs(detail.retryDelay);
    if (name === 'RequestInfo') this.requestId = detail.requestId;
  }
}
