// Single keys outside of fields, which a visitor can turn off; the list of them is a dialog.
import { recall, remember } from "./store.js";

/** `actions`: key -> function. "?" opens the list. */
export function addShortcuts({ help, open, enabled }, actions) {
  enabled.checked = recall("shortcuts") ?? true;
  enabled.addEventListener("change", () => remember("shortcuts", enabled.checked));
  open.addEventListener("click", () => help.showModal());
  document.addEventListener("keydown", (event) => {
    if (!enabled.checked || document.querySelector("dialog[open]") || event.repeat) return;
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("textarea, select, audio, input:not([type=checkbox])")) return;
    const action = event.key === "?" ? () => help.showModal() : actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
