/** Tabs: one list at a time, chosen by mouse or with the arrow keys. */
import { el } from "../kit/elements.js";
import type { View } from "./view.js";

export class Tabs {
  readonly element: HTMLElement;
  readonly #tabs: readonly HTMLButtonElement[];
  #chosen = 0;

  constructor(
    private readonly views: readonly View[],
    private readonly changed: (view: View) => void,
  ) {
    this.#tabs = views.map(({ id, title }, index) =>
      el(
        "button",
        {
          type: "button",
          role: "tab",
          id: `tab-${id}`,
          "aria-controls": `list-${id}`,
          click: () => this.#choose(index),
          keydown: (event: KeyboardEvent) => this.#onKey(event),
        },
        title,
      ),
    );
    this.element = el(
      "section",
      { class: "panel lists", "aria-label": "Lists" },
      el("div", { role: "tablist", "aria-label": "Lists" }, ...this.#tabs),
      ...views.map(({ id, element }) =>
        el("div", { role: "tabpanel", id: `list-${id}`, class: "tab", "aria-labelledby": `tab-${id}` }, element),
      ),
    );
    this.#mark(0);
  }

  /** Choose the tab before or behind; the first one comes after the last. */
  step(by: 1 | -1): void {
    this.#choose((this.#chosen + by + this.#tabs.length) % this.#tabs.length);
  }

  #choose(index: number): void {
    this.#mark(index);
    const view = this.views[index];
    if (view !== undefined) {
      this.changed(view);
    }
  }

  #mark(index: number): void {
    this.#chosen = index;
    this.#tabs.forEach((tab, each) => {
      tab.setAttribute("aria-selected", String(each === index));
      tab.tabIndex = each === index ? 0 : -1;
    });
    this.views.forEach(({ element }, each) => {
      element.parentElement?.toggleAttribute("hidden", each !== index);
    });
  }

  #onKey(event: KeyboardEvent): void {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by !== 0) {
      event.preventDefault();
      this.step(by);
      this.#tabs[this.#chosen]?.focus();
    }
  }
}
