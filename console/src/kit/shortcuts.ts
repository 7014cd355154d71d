/** Keys that do something, and the dialog that lists them. */
import { el } from "./elements.js";

export interface Shortcut {
  /** As in `KeyboardEvent.key`. */
  readonly keys: readonly string[];
  readonly text: string;
  run(): void;
}

const NAMES: Record<string, string> = { ArrowUp: "↑", ArrowDown: "↓" };

export class Shortcuts {
  readonly #groups: { title: string; shortcuts: readonly Shortcut[]; isActive: () => boolean }[] = [];

  constructor() {
    document.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Add shortcuts that work while `isActive` says so. */
  add(title: string, shortcuts: readonly Shortcut[], isActive: () => boolean = () => true): void {
    this.#groups.push({ title, shortcuts, isActive });
  }

  /** Show all shortcuts. */
  help(): void {
    const groups = this.#groups.map(({ title, shortcuts }) =>
      el(
        "section",
        {},
        el("h2", {}, title),
        el(
          "dl",
          {},
          ...shortcuts.flatMap(({ keys, text }) => [
            el("dt", {}, ...keys.map((key) => el("kbd", {}, NAMES[key] ?? key))),
            el("dd", {}, text),
          ]),
        ),
      ),
    );
    const dialog = el(
      "dialog",
      { class: "shortcuts", "aria-labelledby": "shortcuts-title", close: () => dialog.remove() },
      el("h1", { id: "shortcuts-title" }, "Keyboard"),
      el("div", { class: "groups" }, ...groups),
      el("p", { class: "hint" }, "Charts by ", tradingView(), ", ", licenses(), "."),
      el("button", { type: "button", autofocus: true, click: () => dialog.close() }, "Close"),
    );
    document.body.append(dialog);
    dialog.showModal();
  }

  #onKey(event: KeyboardEvent): void {
    const target = event.target as Element;
    if (
      event.defaultPrevented ||
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      target.closest("input, textarea, select, dialog") !== null
    ) {
      return;
    }
    for (const { shortcuts, isActive } of this.#groups) {
      const found = shortcuts.find(({ keys }) => keys.includes(event.key));
      // The arrows scroll what has the focus for that.
      if (found !== undefined && isActive() && !(event.key.startsWith("Arrow") && target.closest("[tabindex='0'][role=group]") !== null)) {
        event.preventDefault();
        found.run();
        return;
      }
    }
  }
}

function tradingView(): HTMLElement {
  return el(
    "a",
    { href: "https://www.tradingview.com/", rel: "noreferrer", target: "_blank" },
    "TradingView Lightweight Charts™",
  );
}

function licenses(): HTMLElement {
  return el("a", { href: "console/licenses.txt" }, "licenses");
}
