/** Tabs: one list at a time, chosen by mouse or with the arrow keys. */
import { el } from "../kit/elements.js";
import type { View } from "./view.js";

export class Tabs {
  readonly element: HTMLElement;
  readonly #tabs: readonly HTMLButtonElement[];

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
          keydown: (event: KeyboardEvent) => this.#onKey(event, index),
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

  #choose(index: number): void {
    this.#mark(index);
    const view = this.views[index];
    if (view !== undefined) {
      this.changed(view);
    }
  }

  #mark(index: number): void {
    this.#tabs.forEach((tab, each) => {
      tab.setAttribute("aria-selected", String(each === index));
      tab.tabIndex = each === index ? 0 : -1;
    });
    this.views.forEach(({ element }, each) => {
      element.parentElement?.toggleAttribute("hidden", each !== index);
    });
  }

  #onKey(event: KeyboardEvent, index: number): void {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (by !== 0) {
      event.preventDefault();
      const next = (index + by + this.#tabs.length) % this.#tabs.length;
      this.#choose(next);
      this.#tabs[next]?.focus();
    }
  }
}
