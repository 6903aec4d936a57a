// Listening: microphone, live connection, meter and screen lock as one thing with a start and a stop.
import { LiveClient } from "./live.js";
import { Microphone } from "./microphone.js";

const ENDED = {
  idle: ["The session ended", "The server heard nothing for some minutes."],
  max_duration: ["The session ended", "It reached the longest time the server allows. Listen again to go on."],
  drain: ["The server is shutting down", "Listen again in a moment to go on."],
};

export class Recorder {
  /** `on`: state(name), failed(title, detail), speakers(boolean). Results go to the transcript. */
  constructor(transcript, meter, on) {
    this.transcript = transcript;
    this.meter = meter;
    this.on = on;
    this.state = "idle";
    this.number = 0;
    this.heard = 0;
    document.addEventListener("visibilitychange", () => this.lockScreen());
  }

  async start(settings) {
    this.become("opening");
    this.heard = 0;
    try {
      this.microphone = await Microphone.open((pcm) => this.hear(pcm), () => this.stop());
    } catch (error) {
      this.become("idle");
      this.on.failed(error.message, error.detail ?? "");
      return;
    }
    this.number += 1;
    const offset = this.transcript.duration;
    this.meter.start();
    this.lockScreen();
    const url = new URL("ws/realtime", document.baseURI);
    url.protocol = url.protocol.replace("http", "ws");
    this.client = new LiveClient(url, settings, {
      state: (name) => this.onState(name),
      result: (result) => this.transcript.show(`live ${this.number}.${result.connection}`, result, offset),
      speakers: (available) => this.on.speakers(available),
      failed: (title, detail) => this.on.failed(title, detail),
      ended: (reason) => this.on.failed(...(ENDED[reason] ?? ["The session ended", reason])),
    });
  }

  /** Resolves when the last sentence is there. */
  async stop() {
    if (!this.client || this.state === "stopping") return;
    this.become("stopping");
    await this.closeMicrophone();
    await this.client.stop();
  }

  update(settings) {
    this.client?.update(settings);
  }

  get seconds() {
    return this.heard;
  }

  hear(pcm) {
    this.heard += pcm.length / 16000;
    this.meter.hear(pcm);
    this.client?.hear(pcm);
  }

  onState(name) {
    if (name === "stopped") this.onStopped();
    else if (this.state !== "stopping" || name === "reconnecting") this.become(name);
  }

  async onStopped() {
    await this.closeMicrophone();
    this.client = null;
    this.transcript.dropPartial();
    this.become("idle");
  }

  async closeMicrophone() {
    const { microphone } = this;
    this.microphone = null;
    this.meter.stop();
    await microphone?.close();
    await this.screen?.release();
    this.screen = null;
  }

  async lockScreen() {
    if (!this.microphone || document.hidden || !navigator.wakeLock) return;
    try {
      this.screen = await navigator.wakeLock.request("screen");
    } catch (error) {
      console.info("the screen may turn off:", error.message);
    }
  }

  become(name) {
    this.state = name;
    this.on.state(name);
  }
}
