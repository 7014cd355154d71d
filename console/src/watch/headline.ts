/** The chosen symbol in large: its price, change, bid and ask, and how fresh it is. */
import type { Client, LiveStatus } from "@floorcast/client";
import { el, Text } from "../kit/elements.js";
import { age, decimal, direction, elapsed, percent } from "../kit/format.js";
import type { Quote } from "./quote.js";
import { isDimmed } from "./row.js";

const FIELDS = ["Bid", "Ask", "Volume", "Age"] as const;
const CALM = new Set<LiveStatus>(["live", "halted", "closed"]);

export class Headline {
  readonly element: HTMLElement;
  readonly #symbol = new Text();
  readonly #name = new Text();
  readonly #last = new Text();
  readonly #change = new Text();
  readonly #badge = el("span", { class: "badge" });
  readonly #badgeText = new Text();
  readonly #price = el("b", { class: "price" });
  readonly #changed = el("span", { class: "change" });
  readonly #fields = FIELDS.map(() => new Text());
  #quote: Quote | null = null;

  constructor(
    private readonly client: Client,
    openAlerts: () => void,
  ) {
    this.#badge.append(this.#badgeText.node);
    this.#price.append(this.#last.node);
    this.#changed.append(this.#change.node);
    this.element = el(
      "section",
      { class: "panel headline", "aria-label": "Price" },
      el("h2", {}, this.#symbol.node, el("small", {}, this.#name.node)),
      this.#price,
      this.#changed,
      el("dl", {}, ...FIELDS.map((name, index) => el("div", { class: name.toLowerCase() }, el("dt", {}, name), el("dd", {}, this.#fields[index]?.node ?? "")))),
      this.#badge,
      el("button", { type: "button", click: openAlerts, title: "Alert at a price  a" }, "Alert"),
    );
  }

  show(quote: Quote): void {
    const { base, quote: counter } = quote.instrument;
    this.#quote = quote;
    this.#symbol.set(quote.symbol);
    this.#name.set(base === undefined || counter === undefined ? "" : `${base} / ${counter}`);
    this.draw();
  }

  draw(): void {
    const quote = this.#quote;
    if (quote === null) {
      return;
    }
    const { last, change, direction: move, bid, ask, volume, ts, freshness } = quote;
    this.#last.set(last === null ? "–" : decimal(last));
    this.#price.className = `price ${move ?? ""}`;
    this.#change.set(Number.isNaN(change) ? "" : percent(change));
    this.#changed.className = `change ${direction(change)}`;
    const ageMs = ts === null ? null : this.client.age(ts);
    const values = [
      bid === null ? "" : decimal(bid),
      ask === null ? "" : decimal(ask),
      volume ?? "",
      ageMs === null ? "" : age(ageMs),
    ];
    values.forEach((value, index) => this.#fields[index]?.set(value));
    this.element.classList.toggle("dimmed", isDimmed(freshness));
    const isCalm = ageMs === null || CALM.has(freshness);
    this.#badgeText.set(isCalm ? freshness : `${freshness} ${elapsed(ageMs)}`);
    this.#badge.className = `badge ${freshness === "live" ? "good" : "warning"}`;
  }
}
