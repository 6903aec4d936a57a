// On the audio thread: microphone -> 16 kHz mono Int16 in frames of 100 ms.
import { Resampler } from "./resample.js";

const RATE = 16000;
const FRAME = RATE / 10;

class Frames extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = sampleRate === RATE ? null : new Resampler(sampleRate, RATE);
    this.frame = new Int16Array(FRAME);
    this.filled = 0;
    this.running = true;
    this.port.onmessage = () => this.finish();
  }

  process([channels]) {
    if (this.running && channels.length) {
      const mono = channels[0];
      this.push(this.resampler ? this.resampler.push(mono) : mono);
    }
    return this.running;
  }

  push(samples) {
    for (const sample of samples) {
      this.frame[this.filled] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      this.filled += 1;
      if (this.filled === FRAME) this.post();
    }
  }

  post() {
    const pcm = this.frame.slice(0, this.filled);
    this.filled = 0;
    this.port.postMessage(pcm, [pcm.buffer]);
  }

  finish() {
    this.running = false;
    if (this.filled) this.post();
    this.port.postMessage(null);
  }
}

registerProcessor("frames", Frames);
