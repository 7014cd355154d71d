/** The bars of a symbol: those that are kept, and the one that grows. */
import type { Bar, FetchCandles } from "../contract.js";
import type { MessageOf } from "./messages.js";
import { type Live, type StoreContext, TopicStore, withFields } from "./stores.js";
import type { TopicListener } from "./subscription.js";

export type CandleInterval = FetchCandles["interval"];

export interface Candles extends Live {
  readonly interval: CandleInterval;
  /** Oldest first. */
  readonly bars: readonly Bar[];
}

/** Bars of both lists, oldest first; of two with one start the newer one. */
export function mergeBars(older: readonly Bar[], newer: readonly Bar[]): readonly Bar[] {
  const last = older.at(-1);
  const first = newer[0];
  if (last === undefined || first === undefined || first.t > last.t) {
    return [...older, ...newer];
  }
  const byStart = new Map(older.map((bar) => [bar.t, bar]));
  newer.forEach((bar) => byStart.set(bar.t, bar));
  return [...byStart.values()].sort((a, b) => a.t - b.t);
}

export class CandleStore extends TopicStore<Candles> {
  #bars: readonly Bar[] = [];

  constructor(
    symbol: string,
    readonly interval: CandleInterval,
    intervalMs: number,
    private readonly limit: number,
    context: StoreContext,
  ) {
    super(`TRADES:${symbol}@${interval}`, symbol, intervalMs, context);
  }

  protected get hasData(): boolean {
    return this.#bars.length > 0;
  }

  protected listener(): TopicListener {
    return {
      message: (message) => {
        const { bars = [] } = (message as MessageOf<"TRADES">).data;
        const older = message.type === "snapshot" ? [] : this.#bars;
        this.#bars = mergeBars(older, bars).slice(-this.limit);
        this.ts = message.ts;
        this.changed();
      },
    };
  }

  protected build(): Candles {
    return withFields(this.live(), { interval: this.interval, bars: this.#bars });
  }
}
