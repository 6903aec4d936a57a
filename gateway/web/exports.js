// The transcript as txt, srt, vtt and json.
import { clock, speakerName } from "./transcript.js";

const MAX_COLUMNS = 84;
const WIDE = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]/u;
const PIECE = /\S*[^\s\p{scx=Han}\p{scx=Hira}\p{scx=Kana}]\s*|[\p{scx=Han}\p{scx=Hira}\p{scx=Kana}][，。、！？；：]*\s*|\s+/gu;

const TYPES = { txt: "text/plain", srt: "application/x-subrip", vtt: "text/vtt", json: "application/json" };
const FORMATS = { txt: toTxt, srt: toSrt, vtt: toVtt, json: toJson };

/** A Blob of the transcript in `format`: "txt", "srt", "vtt" or "json". */
export function exported(transcript, format) {
  return new Blob([FORMATS[format](transcript)], { type: `${TYPES[format]};charset=utf-8` });
}

function toTxt({ sentences }) {
  const lines = sentences.map(({ text, start, speaker }) => {
    const who = speaker === null ? "" : `${speakerName(speaker)}: `;
    return `[${clock(start)}] ${who}${text}\n`;
  });
  return lines.join("");
}

function toSrt({ sentences }) {
  const blocks = sentences.flatMap(cues).map(({ text, start, end, speaker }, index) => {
    const who = speaker === null ? "" : `${speakerName(speaker)}: `;
    return `${index + 1}\n${stamp(start, ",")} --> ${stamp(end, ",")}\n${who}${text}\n`;
  });
  return blocks.join("\n");
}

function toVtt({ sentences }) {
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const blocks = sentences.flatMap(cues).map(({ text, start, end, speaker }) => {
    const who = speaker === null ? "" : `<v ${speakerName(speaker)}>`;
    return `${stamp(start, ".")} --> ${stamp(end, ".")}\n${who}${escaped(text)}\n`;
  });
  return ["WEBVTT\n", ...blocks].join("\n");
}

function toJson({ sentences, duration, source }) {
  const rounded = (seconds) => Math.round(seconds * 1000) / 1000;
  const segments = sentences.map(({ text, start, end, speaker, words }) => ({
    text,
    start: rounded(start),
    end: rounded(end),
    ...(speaker === null ? {} : { speaker: speakerName(speaker) }),
    ...(words ? { words } : {}),
  }));
  const body = { source, duration: rounded(duration), text: sentences.map(({ text }) => text).join(" "), segments };
  return `${JSON.stringify(body, null, 2)}\n`;
}

function stamp(seconds, decimal) {
  const millis = Math.round(seconds * 1000);
  const parts = [Math.floor(millis / 3600000), Math.floor(millis / 60000) % 60, Math.floor(millis / 1000) % 60];
  return `${parts.map((n) => String(n).padStart(2, "0")).join(":")}${decimal}${String(millis % 1000).padStart(3, "0")}`;
}

const columns = (text) => [...text].reduce((sum, letter) => sum + (WIDE.test(letter) ? 2 : 1), 0);

/** A sentence as cues that fit on a screen; times within it are shared out by length of text. */
function cues({ text, start, end, speaker }) {
  const total = columns(text);
  const count = Math.ceil(total / MAX_COLUMNS);
  const groups = [""];
  for (const piece of text.match(PIECE) ?? [text]) {
    const last = groups[groups.length - 1];
    if (last && columns(last + piece.trimEnd()) > total / count + 6) groups.push(piece);
    else groups[groups.length - 1] = last + piece;
  }
  let begun = start;
  return groups.map((group) => {
    const next = begun + ((end - start) * columns(group)) / total;
    const cue = { text: group.trim(), start: begun, end: next, speaker };
    begun = next;
    return cue;
  });
}
