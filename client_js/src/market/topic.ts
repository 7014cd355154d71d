/** One topic of a client: who listens, what the server was asked for, and how far it is. */
import type { AnyMessage, Position } from "../contract.js";
import type { FloorcastError } from "../errors.js";
import { isMerged, positionOf } from "./messages.js";
import type { TopicListener, TopicStatus } from "./topics.js";

export class Topic {
  /** Each listener, and how far it is. */
  readonly listeners = new Map<TopicListener, Position | null>();
  /** Listeners that left in this turn, and may be back at once: React's StrictMode. */
  readonly left = new Map<TopicListener, Position | null>();
  position: Position | null = null;
  status: TopicStatus = { subscription: "pending", feed: null, error: null, intervalMs: 0 };
  /** The interval of the subscription on this connection, null without one. */
  asked: number | null = null;
  /** A request is in flight, or must wait. */
  isBusy = false;
  /** Updates alone are not enough for a listener. */
  needsSnapshot = false;
  /** The request in flight has no `since`: its reply begins anew. */
  awaitsSnapshot = false;
  resyncedAt = -Infinity;
  attempt = 0;

  constructor(readonly name: string) {}

  addListener(listener: TopicListener): void {
    if (this.listeners.size === 0 && this.status.subscription === "error") {
      this.status = { ...this.status, subscription: "pending", error: null };
    }
    if (!this.left.has(listener)) {
      listener.begin?.();
      const begins = isMerged(this.name) || (listener.last ?? 0) > 0;
      // The others had their snapshot already.
      this.needsSnapshot ||= begins && (this.position !== null || this.awaitsSnapshot);
    }
    this.listeners.set(listener, this.left.get(listener) ?? null);
    listener.status?.(this.status);
  }

  removeListener(listener: TopicListener): void {
    const at = this.listeners.get(listener);
    if (at !== undefined) {
      this.left.set(listener, at);
      this.listeners.delete(listener);
    }
  }

  /** The shortest interval that a listener wants; null if none listens now. */
  wanted(isHidden: boolean): number | null {
    let interval: number | null = null;
    for (const each of this.listeners.keys()) {
      if (!isHidden || each.pausesHidden !== true) {
        interval = Math.min(interval ?? Infinity, each.intervalMs ?? 0);
      }
    }
    return interval;
  }

  get last(): number {
    return Math.max(0, ...[...this.listeners.keys()].map((each) => each.last ?? 0));
  }

  mustAsk(interval: number): boolean {
    const isDue = this.asked !== interval || this.needsSnapshot;
    return isDue && this.status.subscription !== "error";
  }

  /** Whether the next request begins anew. A kept stream first fetches what it missed. */
  get isFresh(): boolean {
    const fetchesFirst = !isMerged(this.name) && this.asked === null;
    return this.position === null || (this.needsSnapshot && !fetchesFirst);
  }

  setStatus(change: Partial<TopicStatus>): void {
    this.status = { ...this.status, ...change };
    for (const each of [...this.listeners.keys()]) {
      each.status?.(this.status);
    }
  }

  fail(error: FloorcastError): void {
    this.setStatus({ subscription: "error", error, feed: null });
  }

  /** Deliver to all who do not have it; snapshots of merged streams to everybody. */
  deliver(message: AnyMessage): void {
    const isKept = !isMerged(this.name);
    const position = positionOf(message);
    for (const [listener, at] of [...this.listeners]) {
      const isKnown = at !== null && at.epoch === message.epoch && message.seq <= at.seq;
      if (!(isKept && isKnown)) {
        this.listeners.set(listener, position);
        listener.message?.(message);
      }
    }
    if (this.position?.epoch !== message.epoch || message.seq > this.position.seq) {
      this.position = position;
    }
  }

  /** The messages after the position, up to `seq` of `epoch`, are lost. */
  reportGap(epoch: string, seq: number): void {
    const before = this.position as Position;
    const missedTo = before.epoch === epoch ? seq : null;
    const gap = { topic: this.name, epoch: before.epoch, missedFrom: before.seq + 1, missedTo };
    for (const each of [...this.listeners.keys()]) {
      each.gap?.(gap);
    }
  }
}
