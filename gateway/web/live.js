// The real-time WebSocket: START, audio, STOP. A lost connection is opened again and goes on with the
// audio after the last locked sentence, so that no word is lost or doubled.
import { keyProtocols } from "./key.js";

const RATE = 16000;
const SILENT_SECONDS = 6;
const MAX_ATTEMPTS = 8;
const STOP_SECONDS = 60;
const MAX_BACKLOG = 600;

/** Audio that no locked sentence covers yet. Positions are seconds from the first frame ever pushed. */
class Backlog {
  constructor() {
    this.frames = [];
    this.end = 0;
  }

  get start() {
    return this.frames.length ? this.frames[0].at : this.end;
  }

  push(pcm) {
    this.frames.push({ at: this.end, pcm });
    this.end += pcm.length / RATE;
    this.drop(this.end - MAX_BACKLOG);
  }

  drop(before) {
    const kept = this.frames.findIndex(({ at, pcm }) => at + pcm.length / RATE > before);
    if (kept !== 0) this.frames.splice(0, kept < 0 ? this.frames.length : kept);
  }
}

export class LiveClient {
  /**
   * `handlers`: result({sentences, partial, duration, connection}) in seconds of this client's audio, where
   * `sentences` are those of connection number `connection`; state("connecting" | "live" | "reconnecting" | "stopped"); speakers(boolean);
   * failed(title, detail); ended(reason).
   */
  constructor(url, settings, handlers) {
    this.url = url;
    this.settings = settings;
    this.handlers = handlers;
    this.backlog = new Backlog();
    this.offset = 0;
    this.connection = -1;
    this.attempts = 0;
    this.sent = 0;
    this.waitingSince = null; // when something was sent that has had no answer
    this.started = false;
    this.stopping = false;
    this.over = false;
    this.done = new Promise((resolve) => (this.resolveDone = resolve));
    this.watch = setInterval(() => this.checkAlive(), 1000);
    this.connect("connecting");
  }

  hear(pcm) {
    this.backlog.push(pcm);
    if (this.started) this.flush();
  }

  update(settings) {
    const before = this.settings;
    this.settings = settings;
    if (this.socket?.readyState !== WebSocket.OPEN) return;
    if (settings.language !== before.language) this.socket.send(`LANGUAGE:${settings.language}`);
    if (settings.hotwords.join() !== before.hotwords.join()) {
      this.socket.send(`HOTWORDS:${settings.hotwords.join(",")}`);
    }
  }

  /** Resolves when the last sentence has come, or cannot come any more. */
  stop() {
    this.stopping = true;
    if (this.started) this.socket.send("STOP");
    this.deadline = setTimeout(() => this.finish(() => this.handlers.failed(...LATE)), STOP_SECONDS * 1000);
    return this.done;
  }

  connect(state) {
    this.handlers.state(state);
    this.started = false;
    this.waitingSince = Date.now();
    const socket = new WebSocket(this.url, keyProtocols());
    this.socket = socket;
    socket.onopen = () => this.begin();
    socket.onmessage = ({ data }) => this.receive(JSON.parse(data));
    socket.onclose = (event) => this.lost(event);
  }

  begin() {
    const { language, hotwords, speakers } = this.settings;
    if (language) this.socket.send(`LANGUAGE:${language}`);
    if (hotwords.length) this.socket.send(`HOTWORDS:${hotwords.join(",")}`);
    this.socket.send(`SPK:${speakers}`);
    this.socket.send("START");
  }

  receive(message) {
    this.waitingSince = null;
    if (message.event === "started") this.onStarted();
    else if (message.event === "stopped") this.onStopped(message.reason);
    else if (message.event === "error") this.onError(message.error);
    else if (message.event === "spk_set") this.onSpeakers(message.spk);
    else if (message.sentences) this.onResult(message);
  }

  onError(text) {
    this.finish(() => this.handlers.failed("The server reports an error", text));
  }

  onSpeakers(told) {
    if (this.settings.speakers) this.handlers.speakers(told);
  }

  onStarted() {
    this.started = true;
    this.attempts = 0;
    this.offset = this.backlog.start;
    this.sent = this.offset;
    this.connection += 1;
    this.handlers.state("live");
    this.flush();
    if (this.stopping) this.socket.send("STOP");
  }

  flush() {
    for (const { at, pcm } of this.backlog.frames) {
      if (at < this.sent) continue;
      this.socket.send(pcm);
      this.sent = at + pcm.length / RATE;
      this.waitingSince ??= Date.now();
    }
  }

  onResult({ sentences, partial, partial_start_ms, duration_ms }) {
    const seconds = (ms) => this.offset + ms / 1000;
    const locked = sentences.map(({ text, start, end, spk }) => ({
      text,
      start: seconds(start),
      end: seconds(end),
      speaker: spk ?? null,
    }));
    const begun = seconds(partial_start_ms ?? duration_ms);
    const settled = locked.length ? locked[locked.length - 1].end : this.offset;
    // Silence is kept for a minute only.
    this.backlog.drop(Math.max(settled, Math.min(begun, seconds(duration_ms)) - 60));
    this.handlers.result({
      sentences: locked,
      partial: partial ? { text: partial, start: begun } : null,
      duration: seconds(duration_ms),
      connection: this.connection,
    });
  }

  onStopped(reason) {
    if (reason === "drain" && !this.stopping) this.lost({});
    else this.finish(() => reason && this.handlers.ended(reason));
  }

  checkAlive() {
    if (this.waitingSince === null || (this.started && this.stopping)) return;
    if (Date.now() - this.waitingSince > SILENT_SECONDS * 1000) this.lost({});
  }

  lost({ code }) {
    if (this.over) return;
    this.detach();
    this.attempts += 1;
    if (code === 1008 || this.attempts > MAX_ATTEMPTS) {
      const detail = code === 1008 ? "It does not accept this page's address." : "Check the network, then listen again.";
      this.finish(() => this.handlers.failed("The server cannot be reached", detail));
      return;
    }
    this.handlers.state("reconnecting");
    this.waitingSince = null;
    const wait = Math.min(5000, 250 * 2 ** (this.attempts - 1));
    this.retry = setTimeout(() => this.connect("reconnecting"), wait);
  }

  detach() {
    this.started = false;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }

  finish(tell) {
    if (this.over) return;
    this.over = true;
    clearInterval(this.watch);
    clearTimeout(this.deadline);
    clearTimeout(this.retry);
    this.detach();
    tell();
    this.handlers.state("stopped");
    this.resolveDone();
  }
}

const LATE = ["The last words did not arrive", "The server did not answer in time."];
