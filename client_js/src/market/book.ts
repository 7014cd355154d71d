/** An order book, rebuilt from the messages of its topic. */
import type { BookMessage, Position } from "../contract.js";
import { crc32 } from "./checksum.js";
import { compareDecimals, isZero } from "./decimals.js";
import { positionOf } from "./messages.js";

/** Price and quantity, spelled as published. */
export type Level = readonly [price: string, quantity: string];

const CHECKSUM_LEVELS = 10;

class Side {
  levels: Level[] = [];

  constructor(private readonly descending: boolean) {}

  update(changes: readonly Level[]): void {
    const levels = [...this.levels];
    for (const level of changes) {
      const index = this.#find(levels, level[0]);
      const found = levels[index];
      const isThere = found !== undefined && compareDecimals(found[0], level[0]) === 0;
      if (isZero(level[1])) {
        levels.splice(index, isThere ? 1 : 0);
      } else {
        levels.splice(index, isThere ? 1 : 0, level);
      }
    }
    this.levels = levels;
  }

  /** The index of this price, or the one at which it belongs. */
  #find(levels: readonly Level[], price: string): number {
    let low = 0;
    let high = levels.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const order = compareDecimals((levels[middle] as Level)[0], price);
      if (this.descending ? order > 0 : order < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
}

export class Book {
  readonly #bids = new Side(true);
  readonly #asks = new Side(false);
  #position: Position | null = null;

  /** The position of the levels, null while they are unreliable. */
  get position(): Position | null {
    return this.#position;
  }

  /** Best first; another array after each change. */
  get bids(): readonly Level[] {
    return this.#bids.levels;
  }

  get asks(): readonly Level[] {
    return this.#asks.levels;
  }

  /** Apply a message; false if the book is out of step and needs a snapshot. */
  apply(message: BookMessage): boolean {
    const at = this.#position;
    const isSameEpoch = at !== null && at.epoch === message.epoch;
    if (message.type === "snapshot") {
      if (isSameEpoch && message.seq < at.seq) {
        return true;
      }
      this.#bids.levels = [];
      this.#asks.levels = [];
    } else if (!isSameEpoch || message.prev > at.seq) {
      this.#position = null;
      return false;
    } else if (message.seq <= at.seq) {
      return true;
    }
    this.#bids.update(message.data.bids);
    this.#asks.update(message.data.asks);
    const { checksum } = message.data;
    const matches = checksum === undefined || checksum === null || checksum === this.checksum();
    this.#position = matches ? positionOf(message) : null;
    return matches;
  }

  /** The CRC32 of the ten best levels of both sides, as docs/protocol.md defines it. */
  checksum(): number {
    const words: string[] = [];
    for (let rank = 0; rank < CHECKSUM_LEVELS; rank += 1) {
      for (const side of [this.bids, this.asks]) {
        const level = side[rank];
        if (level !== undefined) {
          words.push(level[0], level[1]);
        }
      }
    }
    return crc32(words.join(":"));
  }
}
