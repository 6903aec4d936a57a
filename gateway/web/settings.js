// Language, hotwords and speakers: kept for the next visit, and told to whoever listens when they change.
import { recall, remember } from "./store.js";

const CODES = [
  "zh", "en", "ja", "ko", "yue", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "ar", "hi", "id", "ms", "fil", "th", "vi",
  "bg", "cs", "da", "el", "et", "fi", "ga", "hr", "hu", "lt", "lv", "mt", "ro", "sk", "sl", "sv",
];
// Those that browsers do not name in their own language.
const OWN_NAMES = { yue: "粵語", ga: "Gaeilge", mt: "Malti", id: "Bahasa Indonesia", ms: "Bahasa Melayu" };

function ownName(code) {
  if (OWN_NAMES[code]) return OWN_NAMES[code];
  const name = new Intl.DisplayNames([code], { type: "language" }).of(code);
  return name.charAt(0).toLocaleUpperCase(code) + name.slice(1);
}

export function splitTerms(text) {
  const terms = text.split(/[,，\n]/).map((term) => term.trim());
  return [...new Set(terms.filter(Boolean))];
}

export class Settings extends EventTarget {
  constructor({ language, hotwords, speakers, chosen, load, list }) {
    super();
    this.fields = { language, hotwords, speakers };
    load.addEventListener("click", () => list.click());
    list.addEventListener("change", () => this.loadList(list));
    this.chosen = chosen;
    language.append(new Option("Automatic", ""), ...CODES.map((code) => new Option(ownName(code), code)));
    this.recallAll();
    for (const field of [language, hotwords, speakers]) field.addEventListener("change", () => this.onChange());
    this.summarise();
  }

  get value() {
    const { language, hotwords, speakers } = this.fields;
    return {
      language: language.value,
      hotwords: splitTerms(hotwords.value),
      speakers: speakers.checked && !speakers.disabled,
    };
  }

  /** Without a speaker model the switch can only be off. */
  allowSpeakers(allowed) {
    this.fields.speakers.disabled = !allowed;
    if (!allowed) this.fields.speakers.checked = false;
    this.summarise();
  }

  /** Adds the words of a text file, one per line. */
  async loadList(list) {
    const [file] = list.files;
    list.value = "";
    if (!file) return;
    const { hotwords } = this.fields;
    hotwords.value = splitTerms(`${hotwords.value}\n${await file.text()}`).join("\n");
    this.onChange();
  }

  recallAll() {
    const saved = recall("settings") ?? {};
    this.fields.language.value = saved.language ?? "";
    this.fields.hotwords.value = saved.hotwords ?? "";
    this.fields.speakers.checked = saved.speakers ?? true;
  }

  onChange() {
    const { language, hotwords, speakers } = this.fields;
    const saved = { language: language.value, hotwords: hotwords.value, speakers: speakers.checked };
    remember("settings", saved);
    this.summarise();
    this.dispatchEvent(new Event("change"));
  }

  summarise() {
    const { hotwords, speakers } = this.value;
    const parts = [this.fields.language.selectedOptions[0]?.textContent];
    if (hotwords.length) parts.push(hotwords.length === 1 ? "1 hotword" : `${hotwords.length} hotwords`);
    if (speakers) parts.push("speakers");
    this.chosen.textContent = parts.join(" · ");
  }
}
