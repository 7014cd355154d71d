/** The ladder: the best levels of the book with their depth, and whether it is verified. */
import type { BookView, Level } from "@floorcast/client";
import { el, Text } from "../kit/elements.js";
import { decimal, places, short } from "../kit/format.js";
import { isDimmed } from "./row.js";

export const LEVELS = 10;

class Line {
  readonly element: HTMLTableRowElement;
  readonly #price = new Text();
  readonly #quantity = new Text();
  readonly #total = new Text();
  #width = -1;

  constructor() {
    this.element = el(
      "tr",
      {},
      el("td", { class: "price" }, this.#price.node),
      el("td", {}, this.#quantity.node),
      el("td", {}, this.#total.node),
    );
  }

  set(level: Level | undefined, total: number, share: number): void {
    this.#price.set(level === undefined ? "\u00a0" : decimal(level[0]));
    this.#quantity.set(level?.[1] ?? "");
    this.#total.set(level === undefined ? "" : short(total));
    const width = level === undefined ? 0 : Math.round(share * 100);
    if (width !== this.#width) {
      this.#width = width;
      // Part of the row's background: an element of its own would cost a layer.
      this.element.style.backgroundSize = `${width}% 100%`;
    }
  }
}

export class Ladder {
  readonly element: HTMLElement;
  readonly #badge = el("span", { class: "badge", role: "status" });
  readonly #badgeText = new Text();
  readonly #spread = new Text();
  #symbol = "";
  readonly #bids = Array.from({ length: LEVELS }, () => new Line());
  readonly #asks = Array.from({ length: LEVELS }, () => new Line());

  constructor() {
    this.#badge.append(this.#badgeText.node);
    const rows = (lines: readonly Line[]) => lines.map(({ element }) => element);
    const header = ["Price", "Quantity", "Total"].map((each) => el("th", { scope: "col" }, each));
    this.element = el(
      "section",
      { class: "panel ladder", "aria-label": "Order book" },
      el("header", {}, el("h2", {}, "Order book"), this.#badge),
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...header)),
        el("tbody", { class: "asks" }, ...rows(this.#asks).reverse()),
        el("tbody", { class: "middle" }, el("tr", {}, el("td", { colspan: 3 }, this.#spread.node))),
        el("tbody", { class: "bids" }, ...rows(this.#bids)),
      ),
    );
  }

  draw(book: BookView): void {
    const { bids, asks, status, symbol } = book;
    this.element.classList.toggle("dimmed", isDimmed(status));
    this.#mark(book);
    if (status === "loading" && bids.length + asks.length === 0 && symbol === this.#symbol) {
      // At another pace it begins anew: what was there stays until it has come.
      return;
    }
    this.#symbol = symbol;
    const totals = [bids, asks].map((side) => totalsOf(side.slice(0, LEVELS)));
    const most = Math.max(...totals.map((each) => each.at(-1) ?? 0));
    for (let rank = 0; rank < LEVELS; rank += 1) {
      this.#bids[rank]?.set(bids[rank], totals[0]?.[rank] ?? 0, (totals[0]?.[rank] ?? 0) / most);
      this.#asks[rank]?.set(asks[rank], totals[1]?.[rank] ?? 0, (totals[1]?.[rank] ?? 0) / most);
    }
    const [bid, ask] = [bids[0]?.[0], asks[0]?.[0]];
    if (bid === undefined || ask === undefined) {
      this.#spread.set("\u00a0");
    } else {
      const digits = Math.max(places(bid), places(ask));
      this.#spread.set(`Spread ${(Number(ask) - Number(bid)).toFixed(digits)}`);
    }
  }

  #mark({ status, resyncs, error, bids, asks }: BookView): void {
    const again = resyncs === 0 ? "" : `, fetched anew ${resyncs}×`;
    const isVerified = status === "live" || status === "halted" || status === "closed";
    this.#badgeText.set(isVerified ? `checksum OK${again}` : (error?.message ?? status));
    this.#badge.className = isVerified ? "badge good" : "badge warning";
    this.#badge.title = isVerified
      ? `${bids.length} bids and ${asks.length} asks match the server's checksum`
      : "";
  }
}

function totalsOf(levels: readonly Level[]): number[] {
  let total = 0;
  return levels.map(([, quantity]) => (total += Number(quantity)));
}
