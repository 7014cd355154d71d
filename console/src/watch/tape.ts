/** The tape: the newest trades of a symbol, the last hundred at once. */
import type { Tape, Trade } from "@floorcast/client";
import { el, Text } from "../kit/elements.js";
import { clock, decimal } from "../kit/format.js";
import { isDimmed } from "./row.js";

const MAX_TRADES = 100;

class Line {
  readonly element: HTMLTableRowElement;
  readonly #time = new Text();
  readonly #price = new Text();
  readonly #quantity = new Text();

  constructor() {
    this.element = el(
      "tr",
      {},
      el("td", {}, this.#time.node),
      el("td", { class: "price" }, this.#price.node),
      el("td", {}, this.#quantity.node),
    );
  }

  set(trade: Trade): void {
    this.element.className = trade.side === "buy" ? "buy" : "sell";
    this.#time.set(clock(trade.ts));
    this.#price.set(decimal(trade.price));
    this.#quantity.set(trade.qty);
  }
}

export class TapePanel {
  readonly element: HTMLElement;
  readonly #body = el("tbody");
  readonly #note = new Text();
  #lines: Line[] = [];
  #shown: readonly Trade[] = [];

  constructor() {
    this.element = el(
      "section",
      { class: "panel tape", "aria-label": "Trades" },
      el("header", {}, el("h2", {}, "Trades"), el("span", { class: "hint" }, this.#note.node)),
      el(
        "div",
        { class: "rows", tabindex: "0", role: "group", "aria-label": "The last trades" },
        el(
          "table",
          {},
          el(
            "thead",
            {},
            el("tr", {}, el("th", { scope: "col" }, "Time"), el("th", { scope: "col" }, "Price"), el("th", { scope: "col" }, "Quantity")),
          ),
          this.#body,
        ),
      ),
    );
  }

  draw({ trades, gaps, status }: Tape): void {
    this.element.classList.toggle("dimmed", isDimmed(status));
    const missing = gaps.length > 0 ? `, ${gaps.length} gaps` : "";
    this.#note.set(trades.length === 0 ? status : `last ${trades.length}${missing}`);
    this.#add(trades);
    this.#shown = trades;
  }

  /** Put the lines of new trades on top; those that fall off at the end are used again. */
  #add(trades: readonly Trade[]): void {
    const newest = this.#shown[0];
    const index = newest === undefined ? -1 : trades.indexOf(newest);
    if (index === -1) {
      this.#lines = [];
      this.#body.replaceChildren();
    }
    const added = index === -1 ? trades : trades.slice(0, index);
    for (const trade of [...added].reverse()) {
      const line = this.#lines.length < MAX_TRADES ? new Line() : (this.#lines.pop() as Line);
      line.set(trade);
      this.#lines.unshift(line);
      this.#body.prepend(line.element);
    }
  }
}
