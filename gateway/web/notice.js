// One message at a time that stays until it is dismissed or no longer true; alerts are read out at once.

export class Notice {
  /** `next`: where the focus goes when it was on a message that is taken away. */
  constructor({ root, title, detail, action, close, next }) {
    Object.assign(this, { root, title, detail, action, close, next });
    close.addEventListener("click", () => this.hide());
    action.addEventListener("click", () => {
      const run = this.run;
      this.hide();
      run?.();
    });
  }

  /** `kind`: "error" or "info". `action`: {label, run}. `about`: what `hide(about)` takes it away by. */
  show(title, detail = "", { kind = "error", action = null, about = null, seconds = 0 } = {}) {
    clearTimeout(this.timer);
    this.about = about;
    this.run = action?.run;
    this.root.dataset.kind = kind;
    this.title.textContent = title;
    this.detail.textContent = detail.charAt(0).toUpperCase() + detail.slice(1);
    this.action.hidden = !action;
    this.action.textContent = action?.label ?? "";
    this.root.hidden = false;
    if (seconds) this.timer = setTimeout(() => this.hide(), seconds * 1000);
  }

  hide(about = null) {
    if (about !== null && about !== this.about) return;
    if (this.root.contains(document.activeElement)) this.next.focus({ preventScroll: true });
    this.root.hidden = true;
  }
}
