/** What the server has sent, and when a line that was cut got it. */
import type { AnyMessage } from "@floorcast/client";

const KEPT_MS = 60_000;

export interface Delivery {
  /** When the page's own connection got it, null if the line was first. */
  sentAt: number | null;
  /** When the line got it. */
  arrivedAt: number | null;
  isReplayed: boolean;
}

export interface Outcome {
  readonly missed: number;
  readonly replayed: number;
  readonly lost: number;
}

export class Deliveries {
  readonly #byPosition = new Map<string, Delivery>();
  #cutAt: number | null = null;
  #backAt: number | null = null;

  /** All of the last minute. */
  get all(): Iterable<Delivery> {
    return this.#byPosition.values();
  }

  get cutAt(): number | null {
    return this.#cutAt;
  }

  get backAt(): number | null {
    return this.#backAt;
  }

  cut(now: number): void {
    this.#cutAt = now;
    this.#backAt = null;
  }

  /** The line is back, and what it missed follows. */
  comeBack(now: number): void {
    this.#backAt = now;
  }

  sent(message: AnyMessage, now: number): void {
    this.#of(message, now).sentAt ??= now;
  }

  arrived(message: AnyMessage, now: number): void {
    const delivery = this.#of(message, now);
    delivery.arrivedAt ??= now;
    const { sentAt } = delivery;
    const cutAt = this.#cutAt;
    delivery.isReplayed = sentAt !== null && cutAt !== null && sentAt >= cutAt && this.#isMissed(sentAt);
  }

  /** What became of the messages that were sent while the line was cut. */
  get outcome(): Outcome {
    const missed = [...this.all].filter(({ sentAt }) => sentAt !== null && this.#isMissed(sentAt));
    const replayed = missed.filter(({ arrivedAt }) => arrivedAt !== null).length;
    return { missed: missed.length, replayed, lost: missed.length - replayed };
  }

  #isMissed(sentAt: number): boolean {
    return this.#cutAt !== null && sentAt >= this.#cutAt && sentAt < (this.#backAt ?? Infinity);
  }

  #of({ stream, symbol, epoch, seq }: AnyMessage, now: number): Delivery {
    const key = `${stream} ${symbol} ${epoch} ${seq}`;
    let delivery = this.#byPosition.get(key);
    if (delivery === undefined) {
      delivery = { sentAt: null, arrivedAt: null, isReplayed: false };
      this.#byPosition.set(key, delivery);
      this.#forget(now);
    }
    return delivery;
  }

  /** The oldest ones come first. */
  #forget(now: number): void {
    for (const [key, { sentAt, arrivedAt }] of this.#byPosition) {
      if ((sentAt ?? arrivedAt ?? now) > now - KEPT_MS) {
        return;
      }
      this.#byPosition.delete(key);
    }
  }
}
