// Sample rate conversion for microphones whose context cannot run at the service's rate:
// a Kaiser-windowed sinc, one kernel per phase of the rational ratio, state kept between blocks.

const ZERO_CROSSINGS = 24;
const BETA = 9;
const PASS = 0.94;

const gcd = (a, b) => (b ? gcd(b, a % b) : a);

function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-12; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function kernel(offset, half, scale) {
  const taps = new Float64Array(2 * half);
  for (let k = 0; k < taps.length; k += 1) {
    const t = k - half + 1 - offset;
    const edge = Math.min(1, Math.abs(t) / half);
    const sinc = t === 0 ? 1 : Math.sin(Math.PI * scale * t) / (Math.PI * scale * t);
    taps[k] = (scale * sinc * bessel(BETA * Math.sqrt(1 - edge * edge))) / bessel(BETA);
  }
  const sum = taps.reduce((a, b) => a + b, 0);
  return taps.map((tap) => tap / sum);
}

export class Resampler {
  constructor(from, to) {
    const divisor = gcd(from, to);
    this.up = to / divisor;
    this.down = from / divisor;
    const scale = Math.min(1, to / from) * PASS;
    this.half = Math.ceil(ZERO_CROSSINGS / scale);
    this.phases = Array.from({ length: this.up }, (_, p) => kernel(p / this.up, this.half, scale));
    this.buffer = new Float32Array(this.half - 1);
    this.index = 0; // where the next kernel begins in the buffer
    this.phase = 0;
  }

  /** Float32Array at the input rate -> Float32Array at the output rate, all that is determined so far. */
  push(block) {
    const samples = new Float32Array(this.buffer.length + block.length);
    samples.set(this.buffer);
    samples.set(block, this.buffer.length);
    const out = [];
    while (this.index + 2 * this.half <= samples.length) {
      const taps = this.phases[this.phase];
      let sum = 0;
      for (let k = 0; k < taps.length; k += 1) sum += taps[k] * samples[this.index + k];
      out.push(sum);
      this.phase += this.down;
      this.index += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    const used = Math.min(this.index, samples.length);
    this.buffer = samples.slice(used);
    this.index -= used;
    return Float32Array.from(out);
  }
}
