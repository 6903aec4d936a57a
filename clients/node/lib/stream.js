/** One live session across lost connections. */

import { once } from 'node:events';
import grpc from '@grpc/grpc-js';
import { fromMs, toMs } from './durations.js';
import { TandemError } from './errors.js';
import { SentLog } from './sentlog.js';

const FIRST_DELAY_MS = 100;
const MAX_DELAY_MS = 2000;
const PIECE_BYTES = 64 * 1024;

function logFor(config) {
  const hertz = config.sampleRateHertz ?? 16_000;
  if (config.encoding === 'AUDIO_ENCODING_CONTAINER_OPUS') return new SentLog(0, 1);
  const width = ['AUDIO_ENCODING_MULAW', 'AUDIO_ENCODING_ALAW'].includes(config.encoding) ? 1 : 2;
  return new SentLog(width * hertz, width);
}

/**
 * Iterate for events while sending from elsewhere. A lost connection is taken up again with the session's resume
 * token: what the server had not confirmed is sent again, and every final comes once. Iteration ends after the
 * `ended` event and throws TandemError when the session fails.
 */
export class LiveStream {
  #stub;
  #config;
  #reconnectMs;
  #log;
  #over = new AbortController();
  #token = '';
  #lastFinal;
  #nextFinal = 0;
  #ended = false;

  constructor(stub, { config = {}, reconnectMs = 25_000 } = {}) {
    this.#stub = stub;
    this.#config = config;
    this.#reconnectMs = reconnectMs;
    this.#log = logFor(config);
    /** Connections that were lost and taken up again. */
    this.reconnects = 0;
  }

  /** Queues audio in the format of the config, whole samples only. Resolves when there is room for more. */
  async send(audio) {
    if (audio.length % this.#log.width) throw new RangeError(`${audio.length} bytes are not whole samples`);
    for (let first = 0; first < audio.length; first += PIECE_BYTES) {
      this.#log.add({ audio: audio.subarray(first, first + PIECE_BYTES) });
    }
    await this.#log.room(this.#over.signal);
  }

  /** Queues silence without bytes. */
  sendSilence(ms) {
    this.#log.add({ silence: fromMs(ms) });
  }

  /** Ends the running utterance: its final follows without waiting for a pause. */
  finalize() {
    this.#log.add({ finalize: {} });
  }

  /** New hotwords or language for what follows: fields of UpdateConfig. */
  update(change) {
    this.#log.add({ update: change });
  }

  /** No more audio: what is left is decoded, then the iteration ends. */
  end() {
    this.#log.close();
  }

  /** Gives the session up. */
  close() {
    this.#over.abort();
  }

  async *[Symbol.asyncIterator]() {
    let delay = FIRST_DELAY_MS;
    let giveUp = Date.now() + this.#reconnectMs;
    try {
      while (!this.#ended) {
        try {
          for await (const event of this.#call()) {
            delay = FIRST_DELAY_MS;
            giveUp = Date.now() + this.#reconnectMs;
            yield event;
          }
        } catch (error) {
          const again = this.#token && this.#log.replayable && Date.now() + delay < giveUp;
          if (this.#ended) return;
          if (error.code !== grpc.status.UNAVAILABLE || !again) throw new TandemError(error);
          await new Promise((resolve) => setTimeout(resolve, delay));
          delay = Math.min(2 * delay, MAX_DELAY_MS);
          this.reconnects += 1;
        }
      }
    } finally {
      this.#over.abort();
    }
  }

  /** One connection's part of the session. */
  async *#call() {
    const call = this.#stub.StreamingRecognize();
    const done = new AbortController();
    const cancel = () => call.cancel();
    this.#over.signal.addEventListener('abort', cancel);
    const config = { ...this.#config };
    if (this.#token) Object.assign(config, { resumeToken: this.#token, resumeFrom: this.#lastFinal });
    call.write({ config });
    try {
      for await (const event of call) {
        const received = toMs(event.cursors?.received);
        if (event.started) {
          this.#token = event.started.resumeToken;
          void this.#feed(call, received, done.signal);
        }
        this.#log.confirm(received);
        if (this.#isNew(event)) yield event;
      }
      if (!this.#ended) {
        throw Object.assign(new Error('the server closed the stream'), { code: grpc.status.UNAVAILABLE });
      }
    } finally {
      done.abort();
      this.#over.signal.removeEventListener('abort', cancel);
      call.on('error', () => {}); // the cancellation below
      call.cancel();
    }
  }

  async #feed(call, position, signal) {
    for await (const message of this.#log.from(position, signal)) {
      if (!call.write(message)) {
        await once(call, 'drain', { signal }).catch(() => {}); // over: the loop ends by the signal
      }
    }
    if (!signal.aborted) call.end();
  }

  #isNew(event) {
    const { result } = event;
    if (result?.isFinal) {
      if (Number(result.index) < this.#nextFinal) return false;
      this.#nextFinal = Number(result.index) + 1;
      this.#lastFinal = result.segment.end;
    }
    this.#ended ||= Boolean(event.ended);
    return true;
  }
}
