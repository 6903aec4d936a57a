// Puts the page together: buttons, files, shortcuts, downloads, and what the service says of itself.
import { Captions } from "./captions.js";
import { exported } from "./exports.js";
import { askForKey, keyHeaders } from "./key.js";
import { Meter } from "./meter.js";
import { Notice } from "./notice.js";
import { Recorder } from "./recorder.js";
import { Settings } from "./settings.js";
import { addShortcuts } from "./shortcuts.js";
import { Transcript, clock } from "./transcript.js";
import { Upload } from "./upload.js";

const $ = (id) => document.getElementById(id);
const STATES = {
  idle: "Ready",
  opening: "Microphone…",
  connecting: "Connecting…",
  live: "Listening",
  reconnecting: "Reconnecting…",
  stopping: "Finishing…",
  uploading: "Uploading…",
  working: "Transcribing…",
};

const transcript = new Transcript();
const notice = new Notice({
  root: $("notice"),
  title: $("notice-title"),
  detail: $("notice-detail"),
  action: $("notice-action"),
  close: $("notice-close"),
  next: $("record"),
});
const settings = new Settings({
  language: $("language"),
  hotwords: $("hotwords"),
  speakers: $("speakers"),
  chosen: $("chosen"),
  load: $("load"),
  list: $("list"),
});
const player = $("player");
const captions = new Captions(
  transcript,
  { list: $("captions"), partial: $("partial"), latest: $("latest") },
  (seconds) => {
    player.currentTime = seconds;
    player.play();
  },
);
const meter = new Meter($("wave"), $("level"), (quiet) => {
  if (!quiet) notice.hide("quiet");
  else notice.show("The microphone is silent", "Is it muted, or is another one chosen?", { kind: "info", about: "quiet" });
});
const recorder = new Recorder(transcript, meter, {
  state: onState,
  failed: (title, detail) => notice.show(title, detail),
  speakers: (available) => {
    $("settings-note").textContent = available ? "" : "Live captions come without speakers on this server.";
  },
});
let upload = null;
let service = null;
let listenedFrom = 0; // seconds of the transcript when listening began
let uploadedAt = 0; // milliseconds

function onState(name) {
  document.body.dataset.state = name;
  $("state").textContent = STATES[name];
  const busy = name !== "idle";
  $("record").setAttribute("aria-pressed", String(busy));
  // Not disabled: that would take the focus away from who uses the keyboard.
  $("record").setAttribute("aria-disabled", String(name === "stopping" || name === "opening"));
  $("record-label").textContent = upload ? "Cancel" : busy ? "Stop" : "Listen";
  $("open").disabled = $("clear").disabled = busy;
  if (name === "live") notice.hide("lost");
  if (name === "reconnecting") {
    notice.show("The connection was lost", "Trying again. What you say meanwhile is kept.", { kind: "info", about: "lost" });
  }
  onTick();
}

function onTick() {
  const busy = document.body.dataset.state !== "idle";
  let seconds = busy ? listenedFrom + recorder.seconds : transcript.duration;
  if (upload) seconds = (Date.now() - uploadedAt) / 1000;
  $("clock").textContent = clock(seconds);
}

function onTranscript() {
  const { sentences, duration, isEmpty } = transcript;
  $("empty").hidden = !isEmpty;
  $("bar").hidden = isEmpty;
  for (const button of document.querySelectorAll("[data-save], #copy")) button.disabled = !sentences.length;
  const people = new Set(sentences.map(({ speaker }) => speaker).filter((speaker) => speaker !== null)).size;
  const count = (n, one) => `${n} ${one}${n === 1 ? "" : "s"}`;
  const counts = [[sentences.length, "caption"], [people, "speaker"]].map(([n, one]) => n && count(n, one));
  $("summary").textContent = [transcript.source, ...counts, clock(duration)].filter(Boolean).join(" · ");
}

function toggleRecording() {
  if ($("record").ariaDisabled === "true") return;
  if (upload) upload.cancel();
  else if (recorder.state === "idle") listen();
  else recorder.stop();
}

async function listen() {
  notice.hide();
  if (transcript.source) replaceTranscript("Recording cleared");
  showPlayer(null);
  captions.toLatest();
  listenedFrom = transcript.duration;
  await recorder.start(settings.value);
}

/** An empty transcript; the one before can be had back. */
function replaceTranscript(message) {
  const before = transcript.isEmpty ? null : transcript.snapshot();
  const file = player.file;
  transcript.reset();
  showPlayer(null);
  if (!before) return;
  const run = () => {
    if (document.body.dataset.state === "idle") {
      transcript.reset(before);
      showPlayer(file ?? null);
    } else {
      notice.show("Stop listening first", "", { kind: "info", action: { label: "Undo", run } });
    }
  };
  notice.show(message, "", { kind: "info", action: { label: "Undo", run } });
}

async function transcribe(file) {
  if (document.body.dataset.state !== "idle") return;
  notice.hide();
  if (service && file.size > service.max_file_bytes) {
    notice.show("The file is too large", `This server takes up to ${Math.floor(service.max_file_bytes / 1e6)} MB.`);
    return;
  }
  uploadedAt = Date.now();
  upload = new Upload(new URL("asr", document.baseURI), file, settings.value, (sent) => {
    onState(sent < 1 ? "uploading" : "working");
  });
  onState("uploading");
  try {
    const result = await upload.result;
    replaceTranscript("The transcript before was cleared");
    transcript.source = file.name;
    transcript.show(`file ${uploadedAt}`, result);
    showPlayer(file);
    scrollTo({ top: 0 });
    if (!result.sentences.length) notice.show("No speech found", `${file.name} seems to hold none.`, { kind: "info" });
  } catch (error) {
    notice.show(error.message, error.detail ?? "", error.message === "Cancelled" ? { kind: "info", seconds: 4 } : {});
  } finally {
    upload = null;
    onState("idle");
  }
}

function showPlayer(file) {
  if (player.src) URL.revokeObjectURL(player.src);
  player.file = file;
  if (file) player.src = URL.createObjectURL(file);
  else player.removeAttribute("src");
  player.hidden = !file;
  $("wave").hidden = $("level").hidden = Boolean(file);
  captions.playable = Boolean(file);
  captions.render();
}

function save(format) {
  const url = URL.createObjectURL(exported(transcript, format));
  const stem = transcript.source?.replace(/\.[^.]+$/, "") ?? `captions ${new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-")}`;
  const link = document.createElement("a");
  link.href = url;
  link.download = `${stem}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

async function copy() {
  if (!transcript.sentences.length) return;
  try {
    await navigator.clipboard.writeText(transcript.text);
    $("copy").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy"), 1500);
  } catch (error) {
    notice.show("The transcript was not copied", error.message);
  }
}

async function learnService() {
  const line = document.querySelector(".service");
  try {
    const answer = await fetch(new URL("web/service.json", document.baseURI), { headers: keyHeaders() });
    if (answer.status === 401) return await learnKey();
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    service = await answer.json();
    line.dataset.state = "ready";
    $("service").textContent = service.model;
    if (!service.speakers) settings.allowSpeakers(false);
    $("settings-note").textContent = service.speakers ? "" : "This server has no speaker model.";
  } catch (error) {
    line.dataset.state = "waiting";
    $("service").textContent = error instanceof TypeError ? "Server not reached" : `Starting: ${error.message}`;
    setTimeout(learnService, 2000);
  }
}

async function learnKey() {
  $("service").textContent = "API key needed";
  if (await askForKey($("key"))) return learnService();
  notice.show("This server wants an API key", "Without one nothing is transcribed.", {
    kind: "info",
    action: { label: "Enter a key", run: learnKey },
  });
}

function acceptDrops() {
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    $("drop").hidden = false;
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) $("drop").hidden = true;
  });
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    $("drop").hidden = true;
    transcribe(event.dataTransfer.files[0]);
  });
}

function foldOptions() {
  const wide = matchMedia("(min-width: 62rem)");
  const fold = () => ($("options").open = wide.matches);
  wide.addEventListener("change", fold);
  fold();
}

transcript.addEventListener("change", onTranscript);
settings.addEventListener("change", () => recorder.update(settings.value));
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("record").addEventListener("click", toggleRecording);
$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", ({ target }) => {
  const [file] = target.files;
  target.value = "";
  if (file) transcribe(file);
});
$("copy").addEventListener("click", copy);
$("clear").addEventListener("click", () => {
  replaceTranscript("Transcript cleared");
  $("notice-action").focus();
});
for (const button of document.querySelectorAll("[data-save]")) {
  button.addEventListener("click", () => save(button.dataset.save));
}
player.addEventListener("timeupdate", () => captions.mark(player.currentTime));
player.addEventListener("ended", () => captions.mark(null));
addEventListener("beforeunload", (event) => {
  if (recorder.state !== "idle") event.preventDefault();
});
addShortcuts({ help: $("help"), open: $("help-open"), enabled: $("shortcuts") }, {
  r: toggleRecording,
  o: () => !$("open").disabled && $("file").click(),
  c: copy,
  l: () => captions.toLatest(),
  t: () => $("theme").click(),
});
setInterval(onTick, 250);
acceptDrops();
foldOptions();
onState("idle");
onTranscript();
learnService();
