/** What a page shows of a topic, as values that change once a frame. */
import type { FeedState, PriceData, Trade } from "../contract.js";
import type { ServerClock } from "../connection/clock.js";
import type { Frames } from "../connection/frames.js";
import type { FloorcastError } from "../errors.js";
import { Store } from "../store.js";
import { Book, type Level } from "./book.js";
import type { Gap, MessageOf } from "./messages.js";
import type { TopicListener, TopicStatus } from "./subscription.js";
import type { Topics } from "./topics.js";

export type LiveStatus =
  /** The first answer is due, or a snapshot after a checksum that did not match. */
  | "loading"
  /** Subscribed, and nobody has published anything so far. */
  | "empty"
  | "live"
  /** The feed is silent: the value may be old. */
  | "stale"
  | "halted"
  | "closed"
  /** No connection: the value is from before. */
  | "offline"
  /** Not subscribed, since the page is hidden. */
  | "paused"
  /** The server refused: see `error`. */
  | "error";

export interface Live {
  readonly symbol: string;
  readonly status: LiveStatus;
  readonly error: FloorcastError | null;
  /** False if nobody has ever published there; null while unknown. */
  readonly isKnown: boolean | null;
  /** The server's time of the newest message in ms, null before the first. */
  readonly ts: number | null;
  /** How old that is now, in ms by the server's clock. */
  readonly ageMs: number | null;
}

export interface Price extends Live {
  readonly data: PriceData | null;
}

export interface BookView extends Live {
  /** Best first. */
  readonly bids: readonly Level[];
  readonly asks: readonly Level[];
  /** How often the book was wrong and fetched anew. */
  readonly resyncs: number;
}

export interface Tape extends Live {
  /** Newest first. */
  readonly trades: readonly Trade[];
  /** Trades that could not be fetched after an interruption. */
  readonly gaps: readonly Gap[];
}

export interface StoreContext {
  topics: Topics;
  frames: Frames;
  clock: ServerClock;
}

const FEEDS: Partial<Record<FeedState | "HALTED" | "CLOSED", LiveStatus>> = {
  STALE: "stale",
  RESYNC: "loading",
  HALTED: "halted",
  CLOSED: "closed",
};

/** What a page shows of a topic with this status; `hasData` if a message has come. */
export function liveStatus({ subscription, feed }: TopicStatus, hasData: boolean): LiveStatus {
  if (subscription === "pending") {
    return "loading";
  }
  if (subscription !== "live") {
    return subscription;
  }
  return hasData ? (FEEDS[feed ?? "LIVE"] ?? "live") : "empty";
}

/** What is common to all values of a topic. */
export function liveOf(
  symbol: string,
  status: TopicStatus | null,
  hasData: boolean,
  ts: number | null,
  clock: ServerClock,
): Live {
  return {
    symbol,
    status: status === null ? "loading" : liveStatus(status, hasData),
    error: status?.error ?? null,
    isKnown: status?.isKnown ?? null,
    ts,
    get ageMs() {
      return ts === null ? null : clock.age(ts);
    },
  };
}

/** A value with more fields; a spread would freeze the age. */
export function withFields<Fields extends object>(live: Live, fields: Fields): Live & Fields {
  return Object.assign(live, fields);
}

export abstract class TopicStore<T extends Live> extends Store<T> {
  protected ts: number | null = null;
  #status: TopicStatus | null = null;
  #listener: TopicListener | null = null;
  #release: (() => void) | null = null;

  constructor(
    readonly topic: string,
    readonly symbol: string,
    private readonly askedMs: number,
    protected readonly context: StoreContext,
  ) {
    super(context.frames, askedMs);
  }

  protected abstract get hasData(): boolean;
  protected abstract listener(): TopicListener;

  protected override start(): void {
    this.#listener ??= {
      intervalMs: this.askedMs,
      pausesHidden: true,
      status: (status) => {
        this.#status = status;
        this.changed();
      },
      ...this.listener(),
    };
    this.#release = this.context.topics.add(this.topic, this.#listener);
  }

  protected override stop(): void {
    this.#release?.();
    this.#release = null;
  }

  protected live(isReliable = true): Live {
    const live = liveOf(this.symbol, this.#status, this.hasData, this.ts, this.context.clock);
    return live.status === "live" && !isReliable ? withFields(live, { status: "loading" }) : live;
  }
}

export class PriceStore extends TopicStore<Price> {
  #data: PriceData | null = null;

  protected get hasData(): boolean {
    return this.#data !== null;
  }

  protected listener(): TopicListener {
    return {
      message: (message) => {
        this.#data = (message as MessageOf<"PRICE">).data;
        this.ts = message.ts;
        this.changed();
      },
    };
  }

  protected build(): Price {
    return withFields(this.live(), { data: this.#data });
  }
}

export class BookStore extends TopicStore<BookView> {
  #book = new Book();
  #hasData = false;
  #resyncs = 0;

  protected get hasData(): boolean {
    return this.#hasData;
  }

  protected listener(): TopicListener {
    return {
      begin: () => {
        this.#book = new Book();
      },
      message: (message) => {
        this.#hasData = true;
        this.ts = message.ts;
        const applied = this.#book.apply(message as MessageOf<"ORDERBOOK">);
        if (!applied && this.context.topics.resync(this.topic)) {
          this.#resyncs += 1;
        }
        this.changed();
      },
    };
  }

  protected build(): BookView {
    const { bids, asks, position } = this.#book;
    return withFields(this.live(position !== null), { bids, asks, resyncs: this.#resyncs });
  }
}

export class TradesStore extends TopicStore<Tape> {
  #trades: Trade[] = [];
  #gaps: Gap[] = [];

  constructor(
    symbol: string,
    private readonly last: number,
    context: StoreContext,
  ) {
    super(`TRADES:${symbol}`, symbol, 0, context);
  }

  protected get hasData(): boolean {
    return this.#trades.length > 0;
  }

  protected listener(): TopicListener {
    return {
      last: this.last,
      begin: () => {
        this.#trades = [];
      },
      message: (message) => {
        const { trades = [] } = (message as MessageOf<"TRADES">).data;
        this.#trades = [...[...trades].reverse(), ...this.#trades].slice(0, this.last);
        this.ts = message.ts;
        this.changed();
      },
      gap: (gap) => {
        this.#gaps = [...this.#gaps, gap].slice(-this.last);
        this.changed();
      },
    };
  }

  protected build(): Tape {
    return withFields(this.live(), { trades: this.#trades, gaps: this.#gaps });
  }
}
