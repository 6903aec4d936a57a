/**
 * What the server has not confirmed, in order: the memory that makes resuming lossless. Positions are
 * milliseconds of audio. A rate of 0 bytes per second means that bytes say nothing about time; then nothing can
 * be sent again.
 */

import { fromMs, toMs } from './durations.js';

const MAX_AHEAD_MS = 60_000;

export class SentLog {
  #entries = [];
  #dropped = 0;
  #end = 0;
  #received = 0;
  #closed = false;
  #waiting = [];

  /** @param {number} rate bytes per second @param {number} width bytes per sample */
  constructor(rate, width) {
    Object.assign(this, { rate, width });
  }

  get replayable() {
    return this.rate > 0;
  }

  get kept() {
    return this.#entries.length;
  }

  /** Queues a message. */
  add(message) {
    const start = this.#end;
    if (message.silence) this.#end += toMs(message.silence);
    else if (message.audio && this.rate) this.#end += (message.audio.length / this.rate) * 1000;
    this.#entries.push({ message, start, end: this.#end });
    this.#wake();
  }

  /** Nothing follows. */
  close() {
    this.#closed = true;
    this.#wake();
  }

  /** Resolves when the server is less than a minute of audio behind, or the signal says that it is over. */
  async room(signal) {
    while (this.rate && this.#end - this.#received > MAX_AHEAD_MS && !signal.aborted) await this.#change(signal);
  }

  confirm(position) {
    this.#received = Math.max(this.#received, position);
    while (this.rate && this.#entries.length && this.#entries[0].end < this.#received) this.#forget();
    this.#wake();
  }

  /** Messages from `position` on, the first cut to it, until the end or the signal. */
  async *from(position, signal) {
    let at = this.#dropped;
    while (!signal.aborted) {
      at = Math.max(at, this.#dropped);
      if (at - this.#dropped < this.#entries.length) {
        const message = this.#cut(this.#entries[at - this.#dropped], position);
        at += 1;
        if (!this.rate) this.#forget();
        if (message) yield message;
      } else if (this.#closed) {
        return;
      } else {
        await this.#change(signal);
      }
    }
  }

  #cut({ message, start, end }, position) {
    if (start >= position || start === end) return message;
    if (end <= position) return undefined;
    if (message.silence) return { silence: fromMs(end - position) };
    const samples = Math.round(((position - start) / 1000) * (this.rate / this.width));
    return { audio: message.audio.subarray(samples * this.width) };
  }

  #forget() {
    this.#entries.shift();
    this.#dropped += 1;
  }

  #change(signal) {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      signal.addEventListener('abort', resolve, { once: true });
    });
  }

  #wake() {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
