/** The watch list: all symbols that the server has, those that the search finds. */
import type { Client } from "@floorcast/client";
import { drawSoon } from "../kit/draw.js";
import { el, Text } from "../kit/elements.js";
import { counted } from "../kit/format.js";
import type { Quote } from "./quote.js";
import type { Quotes } from "./quotes.js";
import { Row } from "./row.js";

const HEADERS = [
  ["symbol", "Symbol", "The symbol"],
  ["last", "Last", "The last price"],
  ["change", "Day", "The change since the first price of the day (UTC)"],
  ["line", "5 min", "The last five minutes"],
  ["spread", "Spread", "Ask minus bid, in basis points"],
  ["rate", "Upd/s", "Updates in a second, at the chosen pace"],
  ["age", "Age", "The time since the last update, by the server's clock"],
] as const;

export class WatchList {
  readonly element: HTMLElement;
  readonly search: HTMLInputElement;
  readonly #body = el("tbody");
  readonly #count = new Text();
  readonly #note = new Text();
  readonly #rows = new Map<string, Row>();
  readonly #byElement = new Map<Element, Row>();
  readonly #dirty = new Set<Row>();
  readonly #observer: IntersectionObserver;
  #chosen: Row | null = null;

  constructor(
    private readonly client: Client,
    private readonly quotes: Quotes,
    private readonly choose: (symbol: string) => void,
  ) {
    this.search = el("input", {
      type: "search",
      placeholder: "Search  /",
      "aria-label": "Search for a symbol",
      autocomplete: "off",
      spellcheck: "false",
      input: () => this.#filter(),
      keydown: (event: KeyboardEvent) => this.#onSearchKey(event),
    });
    const scroller = el(
      "div",
      { class: "rows" },
      el(
        "table",
        { class: "watch-list" },
        el(
          "thead",
          {},
          el("tr", {}, ...HEADERS.map(([name, text, title]) => el("th", { class: name, title, scope: "col" }, text))),
        ),
        this.#body,
      ),
    );
    this.element = el(
      "section",
      { class: "panel list", "aria-label": "Watch list" },
      el("header", {}, this.search, el("span", { class: "hint count" }, this.#count.node)),
      el("p", { class: "hint note", role: "status" }, this.#note.node),
      scroller,
    );
    this.element.addEventListener("keydown", (event) => this.#onKey(event));
    this.#observer = new IntersectionObserver((entries) => this.#onSeen(entries), {
      root: scroller,
      rootMargin: "60px",
    });
  }

  /** Put an element beside the search. */
  addTool(element: HTMLElement): void {
    this.search.after(element);
  }

  /** Symbols have appeared or gone. */
  list(): void {
    for (const [symbol, row] of this.#rows) {
      if (this.quotes.get(symbol) !== row.quote) {
        this.#observer.unobserve(row.element);
        row.element.remove();
        this.#rows.delete(symbol);
        this.#byElement.delete(row.element);
      }
    }
    this.#note.set(this.quotes.note);
    const quotes = [...this.quotes.all].sort((a, b) => (a.symbol < b.symbol ? -1 : 1));
    let next: Element | null = this.#body.firstElementChild;
    for (const quote of quotes) {
      let row = this.#rows.get(quote.symbol);
      if (row === undefined) {
        row = new Row(quote, this.choose);
        this.#rows.set(quote.symbol, row);
        this.#byElement.set(row.element, row);
        this.#body.insertBefore(row.element, next);
        this.#observer.observe(row.element);
      } else {
        next = row.element.nextElementSibling;
      }
    }
    this.#filter();
  }

  mark(symbol: string): void {
    const row = this.#rows.get(symbol) ?? null;
    if (this.#chosen !== null) {
      this.#chosen.isChosen = false;
    }
    this.#chosen = row;
    if (row !== null) {
      row.isChosen = true;
      row.element.scrollIntoView({ block: "nearest" });
    }
  }

  /** Choose the symbol before or after the chosen one. */
  step(by: 1 | -1): void {
    const shown = [...this.#body.children].filter((each) => !each.hasAttribute("hidden"));
    const index = this.#chosen === null ? -1 : shown.indexOf(this.#chosen.element);
    const target = shown[Math.min(shown.length - 1, Math.max(0, index + by))];
    const row = target === undefined ? undefined : this.#byElement.get(target);
    if (row !== undefined) {
      this.choose(row.quote.symbol);
    }
  }

  changed(quote: Quote): void {
    const row = this.#rows.get(quote.symbol);
    if (row?.isVisible === true) {
      this.#dirty.add(row);
      drawSoon(this.#draw);
    }
  }

  /** Some times a second. */
  endFlashes(): void {
    const now = performance.now();
    this.#rows.forEach((row) => row.isVisible && row.drawFlash(now));
  }

  /** Once a second. */
  tick(): void {
    const ageOf = (ts: number) => this.client.age(ts);
    this.#rows.forEach((row) => row.isVisible && row.drawSlow(ageOf));
  }

  readonly #draw = (): void => {
    const now = performance.now();
    this.#dirty.forEach((row) => row.draw(now));
    this.#dirty.clear();
  };

  #onSeen(entries: readonly IntersectionObserverEntry[]): void {
    const ageOf = (ts: number) => this.client.age(ts);
    for (const { target, isIntersecting } of entries) {
      const row = this.#byElement.get(target);
      if (row !== undefined) {
        row.isVisible = isIntersecting;
        if (isIntersecting) {
          row.draw(performance.now());
          row.drawSlow(ageOf);
        }
      }
    }
  }

  #filter(): void {
    const wanted = this.search.value.trim().toUpperCase();
    let shown = 0;
    for (const row of this.#rows.values()) {
      const { symbol, base = "", quote = "" } = row.quote.instrument;
      const isFound = [symbol, base, quote].some((each) => each.toUpperCase().includes(wanted));
      row.element.toggleAttribute("hidden", !isFound);
      shown += isFound ? 1 : 0;
    }
    const { total } = this.quotes;
    this.#count.set(shown === total ? counted(total, "symbol") : `${shown} of ${total}`);
  }

  #onSearchKey(event: KeyboardEvent): void {
    if (event.key === "Escape") {
      this.search.value = "";
      this.#filter();
      this.#chosen?.button.focus();
    } else if (event.key === "Enter") {
      const first = [...this.#body.children].find((each) => !each.hasAttribute("hidden"));
      const row = first === undefined ? undefined : this.#byElement.get(first);
      if (row !== undefined) {
        this.choose(row.quote.symbol);
        row.button.focus();
      }
    }
  }

  #onKey(event: KeyboardEvent): void {
    const by = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : null;
    if (by !== null) {
      event.preventDefault();
      this.step(by);
      if (document.activeElement !== this.search) {
        this.#chosen?.button.focus();
      }
    }
  }
}
