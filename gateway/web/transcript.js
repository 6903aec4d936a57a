// What has been said: locked sentences of all takes, the running partial, and how long it all is.
// A take is one recording, one connection of it, or one file. Times are seconds.

export class Transcript extends EventTarget {
  constructor() {
    super();
    this.reset();
  }

  reset(state = null) {
    this.sentences = state?.sentences ?? [];
    this.duration = state?.duration ?? 0;
    this.source = state?.source ?? null;
    this.partial = null;
    this.base = this.sentences.length;
    this.take = null;
    this.changed();
  }

  /** What `reset` brings back. */
  snapshot() {
    return { sentences: this.sentences, duration: this.duration, source: this.source };
  }

  get isEmpty() {
    return this.sentences.length === 0 && !this.partial;
  }

  get text() {
    return this.sentences.map(({ text }) => text).join("\n");
  }

  /**
   * All sentences of take `take` so far, its partial and its length; times count from `offset`. Each take
   * has speakers of its own: nobody knows whether its first speaker was heard before.
   */
  show(take, { sentences, partial = null, duration }, offset = 0) {
    if (take !== this.take) {
      this.take = take;
      this.base = this.sentences.length;
      this.firstSpeaker = 1 + Math.max(-1, ...this.sentences.map(({ speaker }) => speaker ?? -1));
    }
    const shifted = sentences.map((sentence) => ({
      ...sentence,
      start: sentence.start + offset,
      end: sentence.end + offset,
      speaker: sentence.speaker === null ? null : sentence.speaker + this.firstSpeaker,
    }));
    this.sentences = [...this.sentences.slice(0, this.base), ...shifted];
    this.partial = partial && { ...partial, start: partial.start + offset };
    this.duration = Math.max(this.duration, duration + offset);
    this.changed();
  }

  dropPartial() {
    this.partial = null;
    this.changed();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export function speakerName(speaker) {
  return `Speaker ${speaker + 1}`;
}

/** 65.4 -> "1:05", 3665 -> "1:01:05". */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 60) % 60, whole % 60];
  const hours = Math.floor(whole / 3600);
  const padded = (n) => String(n).padStart(2, "0");
  return hours ? [hours, ...parts.map(padded)].join(":") : [parts[0], padded(parts[1])].join(":");
}
