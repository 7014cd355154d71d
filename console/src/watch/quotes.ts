/** The quotes of all symbols of the server, as they appear. */
import type { Client, Instruments } from "@floorcast/client";
import { preference } from "../kit/preferences.js";
import { Quote } from "./quote.js";
import { SAMPLE_MS } from "./samples.js";

export const PACES = [0, 100, 250, 1000] as const;
export type Pace = (typeof PACES)[number];

/** The server allows a thousand topics a connection, and some are for the book and the chart. */
export const MAX_QUOTES = 500;
/** The server allows a hundred requests a second; the past of a symbol is two. */
const SEED_PAUSE_MS = 40;
const DAY_MS = 86_400_000;

export interface QuotesListener {
  /** Symbols have appeared or changed. */
  listed(): void;
  /** A price, or how fresh it is; `before` is the price before. */
  changed(quote: Quote, before: number): void;
  becameStale(quote: Quote): void;
}

export class Quotes {
  readonly #bySymbol = new Map<string, Quote>();
  readonly #pace = preference<Pace>("pace", 100);
  #isActive = true;
  #unseeded: Quote[] = [];
  #isSeeding = false;
  #day = 0;
  /** How many symbols the server has. */
  total = 0;
  /** Why there are no quotes; empty if there are, or may be soon. */
  note = "";

  constructor(
    private readonly client: Client,
    private readonly listener: QuotesListener,
  ) {
    const instruments = client.market.instruments();
    instruments.subscribe(() => this.#onInstruments(instruments.get()));
  }

  get all(): readonly Quote[] {
    return [...this.#bySymbol.values()];
  }

  get(symbol: string): Quote | undefined {
    return this.#bySymbol.get(symbol);
  }

  get pace(): Pace {
    return this.#pace.get();
  }

  set pace(pace: Pace) {
    this.#pace.set(pace);
    this.#bySymbol.forEach((quote) => this.#subscribe(quote));
  }

  /** Without it only the kept ones are subscribed. */
  set isActive(isActive: boolean) {
    this.#isActive = isActive;
    this.#bySymbol.forEach((quote) => this.#subscribe(quote));
  }

  /** Keep a quote while nobody looks, or no longer. */
  keep(quote: Quote, isKept: boolean): void {
    if (quote.isKept !== isKept) {
      quote.isKept = isKept;
      this.#subscribe(quote);
    }
  }

  /** Once a second. */
  tick(): void {
    this.#bySymbol.forEach((quote) => quote.countRate());
    const day = Math.floor(this.client.now() / DAY_MS);
    if (day !== this.#day) {
      this.#day = day;
      this.#seed(this.all);
    }
  }

  #onInstruments({ instruments, status, error }: Instruments): void {
    this.total = instruments.length;
    this.note = error?.message ?? "";
    if (status === "live") {
      this.#forgetOthers(new Set(instruments.map(({ symbol }) => symbol)));
      this.note = this.total === 0 ? "Nothing has been published so far" : "";
    }
    const added: Quote[] = [];
    for (const instrument of instruments) {
      const known = this.#bySymbol.get(instrument.symbol);
      if (known !== undefined) {
        known.instrument = instrument;
      } else if (this.#bySymbol.size < MAX_QUOTES && instrument.streams.includes("PRICE")) {
        const { changed, becameStale } = this.listener;
        const quote = new Quote(instrument, changed, becameStale);
        this.#bySymbol.set(quote.symbol, quote);
        this.#subscribe(quote);
        added.push(quote);
      }
    }
    this.#seed(added);
    this.listener.listed();
  }

  /** A server that was started anew may not have what the one before had. */
  #forgetOthers(listed: ReadonlySet<string>): void {
    for (const [symbol, quote] of this.#bySymbol) {
      if (!listed.has(symbol)) {
        quote.release?.();
        this.#bySymbol.delete(symbol);
      }
    }
  }

  /** The same listener again, in one turn: the client then needs no snapshot. */
  #subscribe(quote: Quote): void {
    quote.release?.();
    quote.release = null;
    quote.listener.intervalMs = this.pace;
    quote.listener.pausesHidden = !quote.isKept;
    if (this.#isActive || quote.isKept) {
      quote.release = this.client.market.subscribe(`PRICE:${quote.symbol}`, quote.listener);
    }
  }

  #seed(quotes: readonly Quote[]): void {
    this.#unseeded.push(...quotes);
    if (!this.#isSeeding) {
      this.#isSeeding = true;
      void this.#seedNext();
    }
  }

  async #seedNext(): Promise<void> {
    let quote: Quote | undefined;
    while ((quote = this.#unseeded.shift()) !== undefined) {
      await this.#seedOne(quote).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, SEED_PAUSE_MS));
    }
    this.#isSeeding = false;
  }

  async #seedOne(quote: Quote): Promise<void> {
    const { market } = this.client;
    const [days, past] = await Promise.all([
      market.fetchCandles(quote.symbol, "1d", { limit: 1 }),
      market.fetchCandles(quote.symbol, "5s", { limit: 60 }),
    ]);
    const [day] = days;
    if (day !== undefined && day.t >= this.#day * DAY_MS) {
      quote.dayOpen = Number(day.o);
    }
    quote.samples.seed(past.map((bar) => [bar.t + SAMPLE_MS - 1, Number(bar.c)]));
    this.listener.changed(quote, quote.value);
  }
}
