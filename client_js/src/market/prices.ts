/** The prices of all symbols that match a pattern, as one value. */
import type { PriceData } from "../contract.js";
import type { FloorcastError } from "../errors.js";
import { Store } from "../store.js";
import type { MessageOf } from "./messages.js";
import {
  liveOf,
  type LiveStatus,
  liveStatus,
  type Price,
  type StoreContext,
  withFields,
} from "./stores.js";
import type { TopicListener, TopicStatus } from "./subscription.js";

export interface Prices {
  readonly status: LiveStatus;
  /** Why the server refused; while it is live, why some symbols are left out. */
  readonly error: FloorcastError | null;
  /** By symbol; a price is another object if and only if it changed. */
  readonly prices: readonly Price[];
}

interface Row {
  readonly symbol: string;
  data: PriceData;
  ts: number;
  /** The price as it was last built, null after a change. */
  price: Price | null;
}

export class PricesStore extends Store<Prices> {
  /** By symbol. */
  readonly #rows: Row[] = [];
  readonly #bySymbol = new Map<string, Row>();
  readonly #statuses = new Map<string, TopicStatus>();
  readonly #listener: TopicListener;
  #status: TopicStatus | null = null;
  #release: (() => void) | null = null;

  constructor(
    private readonly topic: string,
    intervalMs: number,
    private readonly context: StoreContext,
  ) {
    super(context.frames, intervalMs);
    this.#listener = {
      intervalMs,
      pausesHidden: true,
      message: (message) => this.#onMessage(message as MessageOf<"PRICE">),
      status: (status) => {
        this.#status = status;
        this.#rows.forEach((row) => (row.price = null));
        this.changed();
      },
      topicStatus: (topic, status) => this.#onTopicStatus(topic.slice("PRICE:".length), status),
    };
  }

  protected override start(): void {
    this.#release = this.context.topics.add(this.topic, this.#listener);
  }

  protected override stop(): void {
    this.#release?.();
    this.#release = null;
  }

  protected build(): Prices {
    const status = this.#status === null ? "loading" : liveStatus(this.#status, this.#rows.length > 0);
    return {
      status,
      error: this.#status?.error ?? null,
      prices: this.#rows.map((row) => (row.price ??= this.#priceOf(row))),
    };
  }

  #priceOf({ symbol, data, ts }: Row): Price {
    // A name without a star is one topic.
    const status = this.#statuses.get(symbol) ?? this.#status;
    return withFields(liveOf(symbol, status, true, ts, this.context.clock), { data });
  }

  #onMessage({ symbol, data, ts }: MessageOf<"PRICE">): void {
    const row = this.#bySymbol.get(symbol);
    if (row === undefined) {
      const added = { symbol, data, ts, price: null };
      this.#bySymbol.set(symbol, added);
      this.#rows.splice(this.#rankOf(symbol), 0, added);
    } else {
      Object.assign(row, { data, ts, price: null });
    }
    this.changed();
  }

  #onTopicStatus(symbol: string, status: TopicStatus): void {
    this.#statuses.set(symbol, status);
    const row = this.#bySymbol.get(symbol);
    if (row !== undefined) {
      row.price = null;
      this.changed();
    }
  }

  #rankOf(symbol: string): number {
    let [first, end] = [0, this.#rows.length];
    while (first < end) {
      const middle = (first + end) >> 1;
      if ((this.#rows[middle] as Row).symbol < symbol) {
        first = middle + 1;
      } else {
        end = middle;
      }
    }
    return first;
  }
}
