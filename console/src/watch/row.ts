/** One row of the watch list. */
import { el, Text } from "../kit/elements.js";
import { age, decimal, direction, percent } from "../kit/format.js";
import type { Quote } from "./quote.js";
import { Sparkline } from "./sparkline.js";

const FLASH_MS = 350;
const DIMMED = new Set(["stale", "offline", "loading", "empty", "error", "paused"]);

/** Whether what is shown of it is from before. */
export function isDimmed(freshness: string): boolean {
  return DIMMED.has(freshness);
}

export class Row {
  readonly element: HTMLTableRowElement;
  readonly button: HTMLButtonElement;
  readonly #last = new Text();
  readonly #change = new Text();
  readonly #spread = new Text();
  readonly #rate = new Text();
  readonly #age = new Text();
  readonly #lastCell: HTMLTableCellElement;
  readonly #changeCell: HTMLTableCellElement;
  readonly #ageCell: HTMLTableCellElement;
  readonly #spark = new Sparkline(54, 20);
  #flash = "";
  #direction = "";
  #isDimmed = true;
  /** Only what is on the screen is drawn. */
  isVisible = false;

  constructor(
    readonly quote: Quote,
    choose: (symbol: string) => void,
  ) {
    const { symbol } = quote;
    this.button = el("button", { type: "button", tabindex: "-1" }, symbol);
    this.#lastCell = el("td", { class: "last" }, this.#last.node);
    this.#changeCell = el("td", { class: "change" }, this.#change.node);
    this.#ageCell = el("td", { class: "age" }, this.#age.node);
    this.element = el(
      "tr",
      { class: "dimmed", "data-symbol": symbol, click: () => choose(symbol) },
      el("th", { scope: "row" }, this.button),
      this.#lastCell,
      this.#changeCell,
      el("td", { class: "line" }, this.#spark.element),
      el("td", { class: "spread" }, this.#spread.node),
      el("td", { class: "rate" }, this.#rate.node),
      this.#ageCell,
    );
  }

  set isChosen(isChosen: boolean) {
    this.element.classList.toggle("chosen", isChosen);
    this.button.tabIndex = isChosen ? 0 : -1;
    if (isChosen) {
      this.button.setAttribute("aria-current", "true");
    } else {
      this.button.removeAttribute("aria-current");
    }
  }

  /** In the frame after a change. */
  draw(now: number): void {
    const { quote } = this;
    this.#last.set(quote.last === null ? "–" : decimal(quote.last));
    const { change, spread } = quote;
    this.#change.set(Number.isNaN(change) ? "" : percent(change));
    this.#spread.set(Number.isNaN(spread) ? "" : spread.toFixed(spread < 10 ? 2 : 0));
    const sign = direction(change);
    if (sign !== this.#direction) {
      this.#direction = sign;
      this.#changeCell.className = `change ${sign}`;
    }
    const dims = isDimmed(quote.freshness);
    if (dims !== this.#isDimmed) {
      this.#isDimmed = dims;
      this.element.classList.toggle("dimmed", dims);
    }
    this.drawFlash(now);
  }

  /** The flash ends by itself: called now and then. */
  drawFlash(now: number): void {
    const { direction: move, changedAt } = this.quote;
    const flash = now - changedAt < FLASH_MS ? (move ?? "") : "";
    if (flash !== this.#flash) {
      this.#flash = flash;
      this.#lastCell.className = flash === "" ? "last" : `last flash-${flash}`;
    }
  }

  /** Once a second. */
  drawSlow(now: (ts: number) => number): void {
    const { rate, ts, freshness, samples } = this.quote;
    this.#rate.set(rate < 0.05 ? "" : rate.toFixed(rate < 9.95 ? 1 : 0));
    this.#age.set(ts === null ? "" : age(now(ts)));
    this.#ageCell.title = freshness;
    this.#spark.draw(samples.values);
  }
}
