/** Short messages in a corner, which screen readers read out. */
import { el } from "./elements.js";

const SHOWN_MS = 8_000;
const MAX_SHOWN = 4;

export type ToastKind = "info" | "good" | "warning" | "problem";

export class Toasts {
  readonly element = el("div", { class: "toasts", role: "log", "aria-label": "Messages" });

  show(text: string, kind: ToastKind = "info"): void {
    const close = el("button", { type: "button", "aria-label": "Close", click: () => toast.remove() }, "×");
    const toast = el("p", { class: `toast ${kind}` }, text, close);
    this.element.append(toast);
    while (this.element.childElementCount > MAX_SHOWN) {
      this.element.firstElementChild?.remove();
    }
    setTimeout(() => toast.remove(), SHOWN_MS);
  }
}
