/** A connection to one server, or to all servers behind one name. */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';
import { TandemError } from './errors.js';
import { LiveStream } from './stream.js';

const SERVICE = 'tandem.asr.v1.AsrService';
const MAX_RECEIVE_BYTES = 64 << 20;
const PROTOS = fileURLToPath(new URL('../proto', import.meta.url));
const definition = loader.loadSync(['tandem/asr/v1/asr.proto', 'tandem/asr/v1/batch.proto'], {
  includeDirs: [PROTOS],
  defaults: true,
  longs: String,
  enums: String,
  oneofs: true,
});
const { AsrService, BatchService } = grpc.loadPackageDefinition(definition).tandem.asr.v1;

// Each call goes to the next address; a recording that no server has begun is tried again.
const SERVICE_CONFIG = JSON.stringify({
  loadBalancingConfig: [{ round_robin: {} }],
  methodConfig: [
    {
      name: ['Recognize', 'GetCapabilities'].map((method) => ({ service: SERVICE, method })),
      retryPolicy: {
        maxAttempts: 4,
        initialBackoff: '0.1s',
        maxBackoff: '2s',
        backoffMultiplier: 2,
        retryableStatusCodes: ['UNAVAILABLE'],
      },
    },
  ],
});

/** The least time, in milliseconds, to give the recognition of a recording of this length. */
export function deadline(recordingMs) {
  return 10_000 + recordingMs / 10;
}

function credentials({ ca, cert, key }) {
  if (!ca) return grpc.credentials.createInsecure();
  const read = (path) => (path ? readFileSync(path) : null);
  return grpc.credentials.createSsl(read(ca), read(key), read(cert));
}

function bearer(apiKey) {
  return (options, next) =>
    new grpc.InterceptingCall(next(options), {
      start(metadata, listener, start) {
        metadata.set('authorization', `Bearer ${apiKey}`);
        start(metadata, listener);
      },
    });
}

export class TandemClient {
  #stub;
  #batches;

  /**
   * @param {string} target "host:port", or "dns:///name:port" for all addresses of a name
   * @param {{apiKey?: string, ca?: string, cert?: string, key?: string}} [access] a key for every call; PEM files:
   *   ca turns TLS on, cert and key make it mutual
   */
  constructor(target = 'localhost:50051', access = {}) {
    const options = {
      'grpc.max_receive_message_length': MAX_RECEIVE_BYTES,
      'grpc.max_send_message_length': -1,
      'grpc.keepalive_time_ms': 30_000,
      'grpc.keepalive_timeout_ms': 10_000,
      'grpc.service_config': SERVICE_CONFIG,
      interceptors: access.apiKey ? [bearer(access.apiKey)] : [],
    };
    this.#stub = new AsrService(target, credentials(access), options);
    this.#batches = new BatchService(target, credentials(access), {
      interceptors: options.interceptors,
      channelOverride: this.#stub.getChannel(),
    });
  }

  /** Transcribes one recording in its container (wav, flac, mp3, ogg, webm, m4a ...). Throws TandemError. */
  recognize(recording, config = {}, { timeoutMs = deadline(3_600_000) } = {}) {
    return this.#unary('Recognize', { config, audio: recording }, timeoutMs);
  }

  /** What the server can do and its limits. */
  capabilities({ timeoutMs = 10_000 } = {}) {
    return this.#unary('GetCapabilities', {}, timeoutMs);
  }

  /** A live session: `{config, reconnectMs}`, config is a StreamingConfig. */
  stream(options) {
    return new LiveStream(this.#stub, options);
  }

  /** The calls of BatchService, which works on recordings while nobody is connected: see examples/batch.js. */
  get batches() {
    return this.#batches;
  }

  close() {
    this.#stub.close();
  }

  #unary(method, request, timeoutMs) {
    return new Promise((resolve, reject) => {
      this.#stub[method](request, { deadline: Date.now() + timeoutMs }, (error, answer) =>
        error ? reject(new TandemError(error)) : resolve(answer),
      );
    });
  }
}
