// Opens the microphone and hands over its audio: 16 kHz mono Int16Array frames of 100 ms.

const RATE = 16000;

const PROBLEMS = {
  NotAllowedError: [
    "Microphone access is blocked",
    "Allow the microphone for this page in the browser's site settings, then try again.",
  ],
  NotFoundError: ["No microphone found", "Connect one, or open a recording instead."],
  NotReadableError: ["The microphone is busy", "Another program may be using it. Close that and try again."],
};

export class MicrophoneError extends Error {
  constructor(title, detail) {
    super(title);
    this.detail = detail;
  }
}

/** Text and code of a failed getUserMedia as something a visitor can act on. */
function explained(error) {
  const [title, detail] = PROBLEMS[error.name] ?? ["The microphone cannot be opened", error.message];
  return new MicrophoneError(title, detail);
}

async function capture() {
  if (!navigator.mediaDevices) {
    throw new MicrophoneError(
      "The microphone needs a secure page",
      "Open this page over https, or on localhost. Files can be transcribed here all the same.",
    );
  }
  const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  return navigator.mediaDevices.getUserMedia({ audio });
}

/** A context at the service's rate where the browser can convert; else at its own, and the worklet converts. */
function connect(stream) {
  for (const options of [{ sampleRate: RATE }, {}]) {
    let context = null;
    try {
      context = new AudioContext(options);
      return [context, context.createMediaStreamSource(stream)];
    } catch (error) {
      context?.close();
      if (error.name !== "NotSupportedError" || !options.sampleRate) throw error;
    }
  }
  return [];
}

export class Microphone {
  /** `onFrame(Int16Array)` for every 100 ms; `onEnd()` when the device goes away. MicrophoneError. */
  static async open(onFrame, onEnd) {
    let stream = null;
    try {
      stream = await capture();
      const [context, source] = connect(stream);
      await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
      const node = new AudioWorkletNode(context, "frames", { channelCount: 1, channelCountMode: "explicit" });
      // Some browsers run only nodes that lead to the destination; this one writes silence.
      source.connect(node).connect(context.destination);
      await context.resume();
      return new Microphone(stream, context, node, onFrame, onEnd);
    } catch (error) {
      stream?.getTracks().forEach((track) => track.stop());
      throw error instanceof MicrophoneError ? error : explained(error);
    }
  }

  constructor(stream, context, node, onFrame, onEnd) {
    this.stream = stream;
    this.context = context;
    this.node = node;
    this.flushed = new Promise((resolve) => {
      node.port.onmessage = ({ data }) => (data ? onFrame(data) : resolve());
    });
    stream.getAudioTracks()[0].addEventListener("ended", onEnd);
  }

  get rate() {
    return this.context.sampleRate;
  }

  /** Resolves when the last frame has been handed over. */
  async close() {
    this.node.port.postMessage("finish");
    await Promise.race([this.flushed, new Promise((resolve) => setTimeout(resolve, 500))]);
    this.stream.getTracks().forEach((track) => track.stop());
    await this.context.close();
  }
}
