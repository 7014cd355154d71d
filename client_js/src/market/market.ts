/** Prices, books, trades, candles and every other topic of `/market`. */
import type { Bar, Position, Publication } from "../contract.js";
import type { ServerClock } from "../connection/clock.js";
import type { Frames, Visibility } from "../connection/frames.js";
import type { Accepted, Namespace, ReplyTo } from "../connection/namespace.js";
import type { Timers } from "../connection/timers.js";
import type { Readable, Store } from "../store.js";
import { type Candles, type CandleInterval, CandleStore } from "./candles.js";
import { type Instruments, type InstrumentsOptions, InstrumentsStore } from "./instruments.js";
import { type Prices, PricesStore } from "./prices.js";
import {
  BookStore,
  type BookView,
  type Price,
  PriceStore,
  type StoreContext,
  type Tape,
  TradesStore,
} from "./stores.js";
import type { TopicListener } from "./subscription.js";
import { Topics } from "./topics.js";
import { Will, type WillOptions } from "./will.js";

/** Values that nobody listens to are kept up to this number, for whoever comes back. */
const MAX_STORES = 1_000;

export interface PriceOptions {
  /** At most one update in so many ms: 0 (every one), 100, 250 or 1000. */
  intervalMs?: number;
}

export interface BookOptions extends PriceOptions {
  /** Levels of each side; the whole book without it. */
  depth?: number;
  /** Group prices by this step, as a decimal string. Needs `depth`. */
  step?: string;
}

export interface TradesOptions {
  /** How many trades to keep, and to begin with. */
  last?: number;
}

export interface CandleOptions extends PriceOptions {
  /** How many bars to keep. */
  limit?: number;
}

export class Market {
  readonly #topics: Topics;
  readonly #context: StoreContext;
  readonly #will: Will;
  readonly #stores = new Map<string, Store<unknown>>();

  constructor(
    private readonly namespace: Namespace<"/market">,
    visibility: Visibility,
    frames: Frames,
    clock: ServerClock,
    private readonly timers: Timers,
  ) {
    this.#topics = new Topics(namespace, visibility, timers);
    this.#will = new Will(namespace, timers);
    this.#context = { topics: this.#topics, frames, clock };
  }

  /** The price of a symbol; subscribed while somebody listens to it. */
  price(symbol: string, { intervalMs = 0 }: PriceOptions = {}): Readable<Price> {
    const topic = `PRICE:${symbol}`;
    return this.#store(
      `${topic} ${intervalMs}`,
      () => new PriceStore(topic, symbol, intervalMs, this.#context),
    );
  }

  /** The prices of all symbols that match, such as `BTC*`; a symbol that is new appears by itself. */
  prices(match = "*", { intervalMs = 0 }: PriceOptions = {}): Readable<Prices> {
    const topic = `PRICE:${match}`;
    return this.#store(
      `${topic} ${intervalMs}`,
      () => new PricesStore(topic, intervalMs, this.#context),
    );
  }

  /** The order book of a symbol: verified by its checksum, fetched anew if it is wrong. */
  book(symbol: string, { intervalMs = 0, depth, step }: BookOptions = {}): Readable<BookView> {
    const view = depth === undefined ? "" : `@${depth}${step === undefined ? "" : `/${step}`}`;
    const topic = `ORDERBOOK:${symbol}${view}`;
    return this.#store(
      `${topic} ${intervalMs}`,
      () => new BookStore(topic, symbol, intervalMs, this.#context),
    );
  }

  /** The newest trades of a symbol, none skipped. */
  trades(symbol: string, { last = 100 }: TradesOptions = {}): Readable<Tape> {
    return this.#store(
      `TRADES:${symbol} ${last}`,
      () => new TradesStore(symbol, last, this.#context),
    );
  }

  /** The candles of a symbol, with the one that grows. */
  candles(
    symbol: string,
    interval: CandleInterval,
    { intervalMs = 250, limit = 500 }: CandleOptions = {},
  ): Readable<Candles> {
    return this.#store(
      `TRADES:${symbol}@${interval} ${intervalMs} ${limit}`,
      () => new CandleStore(symbol, interval, intervalMs, limit, this.#context),
    );
  }

  /** Candles of the past: the newest ones, or those that begin before a time in ms. */
  async fetchCandles(
    symbol: string,
    interval: CandleInterval,
    { before, limit = 500 }: { before?: number; limit?: number } = {},
  ): Promise<Bar[]> {
    await this.namespace.whenOnline();
    const request = { symbol, interval, limit, ...(before === undefined ? {} : { before }) };
    const { bars } = await this.namespace.request("candles", request);
    return bars;
  }

  /** The symbols of the server, as they change. */
  instruments(options: InstrumentsOptions = {}): Readable<Instruments> {
    const key = `instruments ${options.match ?? ""} ${options.symbols?.join() ?? ""}`;
    const { frames } = this.#context;
    return this.#store(
      key,
      () => new InstrumentsStore(options, this.namespace, frames, this.timers),
    );
  }

  /**
   * Listen to any topic, or to all that match a pattern such as `TRADES:BTC*`, until the returned
   * function is called. Messages come at once, not by frame, and in a hidden tab too.
   */
  subscribe(topic: string, listener: TopicListener): () => void {
    return this.#topics.add(topic, listener);
  }

  /** Publish messages; rejects with the first refusal. Messages with an `id` may be repeated. */
  async publish(...messages: Publication[]): Promise<Position[]> {
    await this.namespace.whenOnline();
    const reply: Accepted<ReplyTo<"/market", "publish">> = await this.namespace.request("publish", {
      messages,
    });
    return reply.positions as Position[];
  }

  /**
   * What the server publishes once the last connection of this user has been gone for `afterMs`;
   * null takes it back. Resolves once the server has it, and is set again after each reconnect.
   */
  will(messages: readonly Publication[] | null, options: WillOptions = {}): Promise<void> {
    return this.#will.set(messages, options);
  }

  /** The topics and patterns that are subscribed at the server now. */
  get subscribed(): string[] {
    return this.#topics.subscribed;
  }

  #evictUnused(): void {
    if (this.#stores.size >= MAX_STORES) {
      for (const [key, store] of this.#stores) {
        if (!store.isWatched) {
          this.#stores.delete(key);
        }
      }
    }
  }

  #store<T>(key: string, make: () => Store<T>): Readable<T> {
    let store = this.#stores.get(key) as Store<T> | undefined;
    if (store === undefined) {
      this.#evictUnused();
      store = make();
      this.#stores.set(key, store);
    }
    return store;
  }
}
