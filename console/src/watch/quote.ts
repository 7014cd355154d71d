/** What is known of one symbol: its price, how it moves, and how fresh it is. */
import {
  type AnyMessage,
  type Instrument,
  type LiveStatus,
  liveStatus,
  type TopicListener,
  type TopicStatus,
} from "@floorcast/client";
import { Samples } from "./samples.js";

const RATE_WEIGHT = 0.4;

export class Quote {
  bid: string | null = null;
  ask: string | null = null;
  last: string | null = null;
  volume: string | null = null;
  value = NaN;
  /** The direction of the last change. */
  direction: "up" | "down" | null = null;
  /** When the last price changed, by the local clock; for the flash. */
  changedAt = -Infinity;
  /** The server's time of the newest message. */
  ts: number | null = null;
  freshness: LiveStatus = "loading";
  /** The first price of the day (UTC), or the first one seen. */
  dayOpen = NaN;
  /** Updates in a second. */
  rate = 0;
  readonly samples = new Samples();
  /** Kept while nobody looks: its price is in the title, or has an alert. */
  isKept = false;
  release: (() => void) | null = null;
  #updates = 0;
  #status: TopicStatus | null = null;

  constructor(
    public instrument: Instrument,
    private readonly changed: (quote: Quote, before: number) => void,
    private readonly becameStale: (quote: Quote) => void,
  ) {}

  get symbol(): string {
    return this.instrument.symbol;
  }

  /** The change since the open of the day, as a share. */
  get change(): number {
    return this.value / this.dayOpen - 1;
  }

  /** Ask minus bid in basis points of the middle. */
  get spread(): number {
    const [bid, ask] = [Number(this.bid ?? NaN), Number(this.ask ?? NaN)];
    return ((ask - bid) / (ask + bid)) * 20_000;
  }

  /** Once a second. */
  countRate(): void {
    this.rate += (this.#updates - this.rate) * RATE_WEIGHT;
    this.#updates = 0;
  }

  readonly listener: TopicListener = {
    message: (message) => this.#onMessage(message),
    status: (status) => this.#onStatus(status),
  };

  #onMessage(message: AnyMessage): void {
    if (message.stream !== "PRICE") {
      return;
    }
    const { bid, ask, last, volume } = message.data;
    const before = this.value;
    this.#updates += 1;
    this.ts = message.ts;
    this.bid = bid;
    this.ask = ask;
    this.volume = volume;
    if (last !== this.last) {
      this.last = last;
      this.value = Number(last);
      if (!Number.isNaN(before) && this.value !== before) {
        this.direction = this.value > before ? "up" : "down";
        this.changedAt = performance.now();
      }
    }
    this.samples.add(message.ts, this.value);
    if (Number.isNaN(this.dayOpen)) {
      this.dayOpen = this.value;
    }
    if (this.freshness === "empty" && this.#status !== null) {
      this.freshness = liveStatus(this.#status, true);
    }
    this.changed(this, before);
  }

  #onStatus(status: TopicStatus): void {
    const before = this.#status?.feed;
    this.#status = status;
    this.freshness = liveStatus(status, this.last !== null);
    // One that was stale before the page was opened is no news.
    if (status.feed === "STALE" && before === "LIVE") {
      this.becameStale(this);
    }
    this.changed(this, this.value);
  }
}
