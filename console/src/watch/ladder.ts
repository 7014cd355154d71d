/** The ladder: the best levels of the book or groups of them, with their depth, and whether it is verified. */
import type { BookOptions, BookView, Level } from "@floorcast/client";
import { choice, el, Text } from "../kit/elements.js";
import { decimal, padded, places, short } from "../kit/format.js";
import { preference } from "../kit/preferences.js";
import type { Quote } from "./quote.js";
import { isDimmed } from "./row.js";
import { stepsOf, tickOf } from "./steps.js";

const DEPTHS = [5, 10, 20] as const;
type Depth = (typeof DEPTHS)[number];

/** The digits after the point that all numbers of a column have. */
interface Digits {
  readonly price: number;
  readonly quantity: number;
  readonly total: number;
}

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

  set(level: Level | undefined, total: number, most: number, digits: Digits): void {
    this.#price.set(level === undefined ? "\u00a0" : decimal(padded(level[0], digits.price)));
    this.#quantity.set(level === undefined ? "" : decimal(padded(level[1], digits.quantity)));
    this.#total.set(level === undefined ? "" : sum(total, digits.total));
    const width = level === undefined ? 0 : Math.round((total / most) * 100);
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
  readonly #middle = new Text();
  readonly #asksBody = el("tbody", { class: "asks" });
  readonly #bidsBody = el("tbody", { class: "bids" });
  readonly #scroller: HTMLElement;
  readonly #grouping: HTMLSelectElement;
  readonly #groupingField: HTMLElement;
  readonly #depths;
  readonly #depth = preference<Depth>("depth", 10);
  readonly #steps = preference<Record<string, string>>("steps", {});
  #bids: readonly Line[] = [];
  #asks: readonly Line[] = [];
  #quote: Quote | null = null;
  /** The steps that are offered, as one text. */
  #offered = "";
  #symbol = "";

  /** `changed` is called after another depth or step was chosen. */
  constructor(private readonly changed: () => void) {
    this.#badge.append(this.#badgeText.node);
    this.#grouping = el("select", {
      id: "grouping",
      title: "Group prices by a step  g",
      change: () => this.#group(this.#grouping.value),
    });
    const label = el("label", { for: "grouping" }, "Group by");
    this.#groupingField = el("div", { class: "grouping" }, label, this.#grouping);
    const depths = DEPTHS.map((each) => [each, `${each}`] as const);
    this.#depths = choice("Levels of each side", depths, this.#depth.get(), (depth) => {
      this.#depth.set(depth);
      this.#layLines();
      this.changed();
    });
    const header = ["Price", "Quantity", "Total"].map((each) => el("th", { scope: "col" }, each));
    this.#scroller = el(
      "div",
      { class: "rows", tabindex: "0", role: "group", "aria-label": "Levels" },
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...header)),
        this.#asksBody,
        el("tbody", { class: "middle" }, el("tr", {}, el("td", { colspan: 3 }, this.#middle.node))),
        this.#bidsBody,
      ),
    );
    this.element = el(
      "section",
      { class: "panel ladder", "aria-label": "Order book" },
      el("header", {}, el("h2", {}, "Order book"), this.#badge),
      el("div", { class: "tools" }, this.#groupingField, this.#depths.element),
      this.#scroller,
    );
    this.#layLines();
    new ResizeObserver(() => this.#centre()).observe(this.#scroller);
  }

  /** The view of the book that the ladder shows. */
  get view(): Required<Pick<BookOptions, "depth">> & BookOptions {
    const step = this.#step;
    return { depth: this.#depth.get(), ...(step === "" ? {} : { step }) };
  }

  /** Show the book of this symbol from the next `draw` on. */
  show(quote: Quote): void {
    this.#quote = quote;
    this.offerSteps();
  }

  /** Group by the next larger step, or the next smaller one; the smallest is no grouping. */
  stepGrouping(by: 1 | -1): void {
    const next = this.#grouping.options[this.#grouping.selectedIndex + by];
    if (next !== undefined) {
      this.#group(next.value);
    }
  }

  nextDepth(): void {
    const next = (DEPTHS.indexOf(this.#depth.get()) + 1) % DEPTHS.length;
    this.#depths.choose(DEPTHS[next] ?? 10);
  }

  draw(book: BookView): void {
    const { bids, asks, status, symbol } = book;
    this.element.classList.toggle("dimmed", isDimmed(status));
    this.#mark(book);
    if (status === "loading" && bids.length + asks.length === 0 && symbol === this.#symbol) {
      // In another view it begins anew: what was there stays until it has come.
      return;
    }
    this.#symbol = symbol;
    const depth = this.#depth.get();
    const sides = [bids.slice(0, depth), asks.slice(0, depth)] as const;
    const [bidTotals, askTotals] = [totalsOf(sides[0]), totalsOf(sides[1])];
    const most = Math.max(bidTotals.at(-1) ?? 0, askTotals.at(-1) ?? 0);
    const digits = digitsOf(sides.flat(), most);
    for (let rank = 0; rank < depth; rank += 1) {
      this.#bids[rank]?.set(bids[rank], bidTotals[rank] ?? 0, most, digits);
      this.#asks[rank]?.set(asks[rank], askTotals[rank] ?? 0, most, digits);
    }
    this.#drawMiddle(bids[0]?.[0], asks[0]?.[0]);
  }

  /** Groups overlap the spread: it is only shown between levels. */
  #drawMiddle(bid: string | undefined, ask: string | undefined): void {
    if (bid === undefined || ask === undefined) {
      this.#middle.set("\u00a0");
    } else if (this.#step !== "") {
      this.#middle.set(`Grouped by ${decimal(this.#step)}`);
    } else {
      const digits = Math.max(places(bid), places(ask));
      this.#middle.set(`Spread ${decimal((Number(ask) - Number(bid)).toFixed(digits))}`);
    }
  }

  #mark({ status, resyncs, error, bids, asks }: BookView): void {
    const again = resyncs === 0 ? "" : `, fetched anew ${resyncs}×`;
    const isVerified = status === "live" || status === "halted" || status === "closed";
    this.#badgeText.set(isVerified ? `checksum OK${again}` : (error?.message ?? status));
    this.#badge.className = isVerified ? "badge good" : "badge warning";
    this.#badge.title = isVerified
      ? `${bids.length} bids and ${asks.length} asks; the ten best of each side match the server's checksum`
      : "";
  }

  /** The step of the chosen symbol, empty if its prices are not grouped. */
  get #step(): string {
    return this.#steps.get()[this.#quote?.symbol ?? ""] ?? "";
  }

  #group(step: string): void {
    if (this.#quote !== null && step !== this.#step) {
      const { [this.#quote.symbol]: _, ...others } = this.#steps.get();
      this.#steps.set(step === "" ? others : { ...others, [this.#quote.symbol]: step });
      this.#grouping.value = step;
      this.changed();
    }
  }

  /** Now and then: which steps make sense depends on the price of the symbol. */
  offerSteps(): void {
    const { instrument, last = null, value = NaN } = this.#quote ?? {};
    const tick = instrument?.tick_size ?? (last === null ? "" : tickOf(last));
    const steps = new Set([...stepsOf(tick, value), ...(this.#step === "" ? [] : [this.#step])]);
    const sorted = [...steps].sort((a, b) => Number(a) - Number(b));
    const offered = `${this.#quote?.symbol} ${sorted.join()}`;
    if (offered !== this.#offered) {
      this.#offered = offered;
      const options = ["", ...sorted].map((step) =>
        el("option", { value: step }, step === "" ? "none" : decimal(step)),
      );
      this.#grouping.replaceChildren(...options);
      this.#grouping.value = this.#step;
      this.#groupingField.toggleAttribute("hidden", sorted.length === 0);
    }
  }

  /** As many lines as the depth has levels. */
  #layLines(): void {
    const lines = () => Array.from({ length: this.#depth.get() }, () => new Line());
    [this.#bids, this.#asks] = [lines(), lines()];
    this.#bidsBody.replaceChildren(...this.#bids.map(({ element }) => element));
    this.#asksBody.replaceChildren(...this.#asks.map(({ element }) => element).reverse());
    this.#centre();
  }

  /** The best prices in the middle, if not all levels fit. */
  #centre(): void {
    this.#scroller.scrollTop = (this.#scroller.scrollHeight - this.#scroller.clientHeight) / 2;
  }
}

function digitsOf(levels: readonly Level[], most: number): Digits {
  return {
    price: Math.max(0, ...levels.map(([price]) => places(price))),
    quantity: Math.max(0, ...levels.map(([, quantity]) => places(quantity))),
    // Four digits of the largest one.
    total: most > 0 ? Math.min(8, Math.max(0, 3 - Math.floor(Math.log10(most)))) : 0,
  };
}

function sum(total: number, digits: number): string {
  return total >= 10_000 ? short(total) : decimal(total.toFixed(digits));
}

function totalsOf(levels: readonly Level[]): number[] {
  let total = 0;
  return levels.map(([, quantity]) => (total += Number(quantity)));
}
