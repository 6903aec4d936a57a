// Shows the transcript: one row per sentence, changed only where it differs; the partial below them.
import { clock, speakerName } from "./transcript.js";

const COLOURS = 8;
const NEAR = 160;

export class Captions {
  /** `onSeek(seconds)` when a visitor picks a time of a recording that can be played. */
  constructor(transcript, elements, onSeek) {
    this.transcript = transcript;
    this.elements = elements;
    this.onSeek = onSeek;
    this.playable = false;
    this.rows = [];
    this.following = true;
    transcript.addEventListener("change", () => this.render());
    addEventListener("scroll", () => this.onScroll(), { passive: true });
    elements.latest.addEventListener("click", () => this.toLatest());
  }

  render() {
    const { sentences, partial } = this.transcript;
    while (this.rows.length > sentences.length) this.rows.pop().remove();
    sentences.forEach((sentence, index) => this.renderRow(sentence, index, sentences[index - 1]));
    const { partial: element } = this.elements;
    element.hidden = !partial;
    if (partial) {
      element.querySelector("time").textContent = clock(partial.start);
      element.querySelector("p").textContent = partial.text;
    }
    this.follow();
  }

  renderRow(sentence, index, before) {
    const isNew = index === this.rows.length;
    const row = isNew ? makeRow() : this.rows[index];
    const named = sentence.speaker !== null && sentence.speaker !== before?.speaker;
    const key = [sentence.text, sentence.start, sentence.speaker, named, this.playable].join("\n");
    if (row.key !== key) {
      row.key = key;
      fill(row, sentence, named, this.playable ? () => this.onSeek(sentence.start) : null);
    }
    if (isNew) {
      this.rows.push(row);
      this.elements.list.append(row);
    }
  }

  /** Marks the sentence that is played at `seconds`; null marks none. */
  mark(seconds) {
    const { sentences } = this.transcript;
    this.rows.forEach((row, index) => {
      const { start, end } = sentences[index];
      row.classList.toggle("playing", seconds !== null && start <= seconds && seconds < end);
    });
  }

  onScroll() {
    const { scrollHeight } = document.documentElement;
    this.following = scrollHeight - innerHeight - scrollY < NEAR;
    this.elements.latest.hidden = this.following || this.transcript.isEmpty;
  }

  follow() {
    if (this.following) scrollTo({ top: document.documentElement.scrollHeight });
    this.elements.latest.hidden = this.following || this.transcript.isEmpty;
  }

  toLatest() {
    this.following = true;
    this.follow();
  }
}

function makeRow() {
  const row = document.createElement("li");
  row.className = "caption";
  const who = document.createElement("span");
  who.className = "who";
  const text = document.createElement("p");
  text.dir = "auto";
  row.append(who, document.createElement("time"), text);
  return row;
}

function fill(row, sentence, named, seek) {
  const [who, time, text] = row.children;
  if (sentence.speaker === null) delete row.dataset.speaker;
  else row.dataset.speaker = sentence.speaker % COLOURS;
  row.classList.toggle("named", named);
  who.hidden = !named;
  who.textContent = named ? speakerName(sentence.speaker) : "";
  time.dateTime = `PT${sentence.start.toFixed(3)}S`;
  time.replaceChildren(seek ? seekButton(sentence.start, seek) : clock(sentence.start));
  text.textContent = sentence.text;
}

function seekButton(start, seek) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = clock(start);
  button.setAttribute("aria-label", `Play from ${clock(start)}`);
  button.addEventListener("click", seek);
  return button;
}
