/** google.protobuf.Duration as proto-loader gives it, and milliseconds. */

/** @param {{seconds?: string|number, nanos?: number}|null|undefined} duration */
export function toMs(duration) {
  return duration ? Number(duration.seconds ?? 0) * 1000 + (duration.nanos ?? 0) / 1e6 : 0;
}

/** @param {number} ms */
export function fromMs(ms) {
  const micros = Math.round(ms * 1000);
  return { seconds: Math.floor(micros / 1e6), nanos: (micros % 1e6) * 1000 };
}
