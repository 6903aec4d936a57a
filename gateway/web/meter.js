// The level meter, and the waveform of the last seconds: bars of 20 ms that move from right to left.

const BIN = 320;
const FLOOR = -60;
const QUIET_SECONDS = 6;
const SILENCE = 0.0008;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

export class Meter {
  /** `onQuiet(boolean)` when the microphone has given nothing for some seconds, and when it does again. */
  constructor(canvas, level, onQuiet) {
    this.canvas = canvas;
    this.level = level;
    this.onQuiet = onQuiet;
    this.bars = [];
    this.total = 0;
    this.running = false;
    new ResizeObserver(() => this.draw()).observe(canvas);
    document.addEventListener("themechange", () => this.draw());
  }

  start() {
    this.bars = [];
    this.total = 0;
    this.quiet = 0;
    this.running = true;
    this.canvas.classList.add("live");
    const frame = () => {
      this.draw();
      if (this.running) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  stop() {
    this.running = false;
    this.canvas.classList.remove("live");
    this.show(0);
    this.draw();
  }

  hear(pcm) {
    let peak = 0;
    for (let i = 0; i < pcm.length; i += BIN) {
      let sum = 0;
      for (const sample of pcm.subarray(i, i + BIN)) {
        sum += sample * sample;
        peak = Math.max(peak, Math.abs(sample));
      }
      this.bars.push(Math.sqrt(sum / BIN) / 32768);
      this.total += 1;
    }
    this.bars.splice(0, Math.max(0, this.bars.length - 1000));
    this.heardAt = performance.now();
    this.show(peak / 32768);
    this.checkQuiet(peak / 32768, pcm.length / 16000);
  }

  show(peak) {
    const decibel = Math.max(FLOOR, Math.round(20 * Math.log10(peak || 1e-9)));
    this.level.firstElementChild.style.transform = `scaleY(${1 - decibel / FLOOR})`;
    this.level.classList.toggle("loud", decibel > -1);
    this.level.setAttribute("aria-valuenow", decibel);
    this.level.setAttribute("aria-valuetext", decibel === FLOOR ? "silent" : `${decibel} decibels`);
  }

  checkQuiet(peak, seconds) {
    const before = this.quiet;
    this.quiet = peak < SILENCE ? before + seconds : 0;
    if (before < QUIET_SECONDS && this.quiet >= QUIET_SECONDS) this.onQuiet(true);
    if (before >= QUIET_SECONDS && !this.quiet) this.onQuiet(false);
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    pen.fillStyle = getComputedStyle(canvas).color;
    this.drawBars(pen, width, height);
  }

  drawBars(pen, width, height) {
    const [step, thick, perBar, delay] = [5, 3, 3, 6];
    // Shown a little late, the picture glides on between two frames of audio.
    const glide = calm.matches ? delay : Math.min(delay, (performance.now() - (this.heardAt ?? 0)) / 20);
    const now = this.running ? Math.max(0, this.total - delay + glide) : this.total;
    const newest = Math.floor(now / perBar) * perBar;
    const shift = ((now - newest) / perBar) * step;
    for (let bar = 0; bar * step < width + step; bar += 1) {
      const last = this.bars.length - (this.total - newest) - bar * perBar;
      const values = this.bars.slice(Math.max(0, last - perBar), Math.max(0, last));
      const loudness = Math.max(0, ...values);
      const decibel = 20 * Math.log10(loudness || 1e-9);
      const tall = Math.max(thick, (1 + (decibel + 6) / 42) * height);
      pen.globalAlpha = tall > thick ? 1 : 0.35;
      pen.beginPath();
      pen.roundRect(width - thick - bar * step - shift, (height - tall) / 2, thick, tall, thick / 2);
      pen.fill();
    }
  }
}
