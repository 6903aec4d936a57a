// POST /asr: one recording, its progress, and its answer as sentences in seconds.
import { keyHeaders } from "./key.js";

export class UploadError extends Error {
  constructor(title, detail) {
    super(title);
    this.detail = detail;
  }
}

export class Upload {
  /** `onProgress(fraction)` while bytes leave; it is 1 while the server works. */
  constructor(url, file, { language, hotwords, speakers }, onProgress) {
    const form = new FormData();
    form.append("file", file, file.name);
    if (language) form.append("language", language);
    if (hotwords.length) form.append("hotwords", hotwords.join(","));
    if (speakers) form.append("spk", "true");
    const request = new XMLHttpRequest();
    this.request = request;
    this.result = new Promise((resolve, reject) => {
      request.upload.onprogress = (event) => onProgress(event.lengthComputable ? event.loaded / event.total : 0);
      request.upload.onload = () => onProgress(1);
      request.onload = () => (request.status === 200 ? resolve(answer(request)) : reject(refusal(request)));
      request.onerror = () => reject(new UploadError("The connection was lost", "The file was not transcribed. Try again."));
      request.onabort = () => reject(new UploadError("Cancelled", ""));
    });
    request.responseType = "text";
    request.open("POST", url);
    for (const [name, value] of Object.entries(keyHeaders())) request.setRequestHeader(name, value);
    request.send(form);
  }

  cancel() {
    this.request.abort();
  }
}

function answer(request) {
  const { segments, duration } = JSON.parse(request.responseText);
  const sentences = segments.map(({ text, start, end, words, speaker }) => ({
    text,
    start,
    end,
    words,
    speaker: speaker === undefined ? null : Number(speaker.replace("SPK", "")),
  }));
  return { sentences, duration };
}

function refusal(request) {
  try {
    const { error } = JSON.parse(request.responseText);
    const id = error.code >= 500 ? ` (request ${error.request_id})` : "";
    return new UploadError("The file was not transcribed", `${error.message}${id}`);
  } catch {
    return new UploadError("The file was not transcribed", `The server answered ${request.status} ${request.statusText}.`);
  }
}
