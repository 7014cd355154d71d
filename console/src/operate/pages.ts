/** A list of the server, of which one page at a time is asked for and shown. */
import { el, Text } from "../kit/elements.js";

export const PAGE = 25;

export class Pages {
  readonly element: HTMLElement;
  readonly #label = new Text();
  readonly #back: HTMLButtonElement;
  readonly #forward: HTMLButtonElement;
  /** The cursors of the pages before this one, and its own. */
  #cursors: string[] = [""];
  #next: string | undefined;

  constructor(changed: () => void) {
    this.#back = el("button", { type: "button", click: () => this.#turn(changed, false) }, "Previous");
    this.#forward = el("button", { type: "button", click: () => this.#turn(changed, true) }, "Next");
    this.element = el(
      "div",
      { class: "pages", role: "group", "aria-label": "Pages" },
      this.#back,
      el("span", { class: "hint" }, this.#label.node),
      this.#forward,
    );
    this.set(undefined);
  }

  /** The part of the address that asks for this page. */
  get query(): string {
    const cursor = this.#cursors.at(-1) ?? "";
    return `limit=${PAGE}${cursor === "" ? "" : `&cursor=${encodeURIComponent(cursor)}`}`;
  }

  /** The answer says where the next page begins. */
  set(next: string | undefined): void {
    this.#next = next;
    this.#label.set(`Page ${this.#cursors.length}`);
    this.#back.disabled = this.#cursors.length === 1;
    this.#forward.disabled = next === undefined;
    this.element.toggleAttribute("hidden", this.#cursors.length === 1 && next === undefined);
  }

  /** Begin anew, for another filter. */
  reset(): void {
    this.#cursors = [""];
    this.set(undefined);
  }

  #turn(changed: () => void, isForward: boolean): void {
    if (!isForward) {
      this.#cursors.pop();
    } else if (this.#next !== undefined) {
      this.#cursors.push(this.#next);
    }
    this.set(undefined);
    changed();
  }
}
