/** One topic of a client: its listeners, and how far each of them and the server are. */
import type { AnyMessage, Position, SinceTime } from "../contract.js";
import { isMerged, positionOf } from "./messages.js";
import { MatchedListener } from "./pattern.js";
import { Subscription, type TopicListener } from "./subscription.js";

export class Topic extends Subscription {
  position: Position | null = null;
  /** Subscribed by its name, and not only by a pattern. */
  isNamed = false;
  /** Updates alone are not enough for a listener. */
  needsSnapshot = false;
  /** The request in flight has no position: its reply begins anew. */
  awaitsSnapshot = false;
  resyncedAt = -Infinity;

  /** The newest position, or the time, that a request must name. */
  get since(): Position | SinceTime | null {
    return this.isFresh ? this.#sinceTime : this.position;
  }

  /** Whether patterns alone want it. */
  get isOnlyMatched(): boolean {
    return [...this.listeners.keys()].every((each) => each instanceof MatchedListener);
  }

  override mustAsk(interval: number): boolean {
    const isDue = this.asked !== interval || this.needsSnapshot;
    return isDue && this.status.subscription !== "error";
  }

  /** Whether the next request begins anew. A kept stream first fetches what it missed. */
  get isFresh(): boolean {
    const fetchesFirst = !isMerged(this.name) && this.asked === null;
    return this.position === null || (this.needsSnapshot && !fetchesFirst);
  }

  /** A request is on its way; returns the `since` of it. */
  ask(interval: number): Position | SinceTime | null {
    const { since } = this;
    this.isBusy = true;
    if (this.isFresh) {
      this.needsSnapshot = false;
      this.awaitsSnapshot = true;
    }
    this.asked = interval;
    return since;
  }

  /** The server does not serve it. */
  release(): void {
    this.asked = null;
    this.isNamed = false;
    this.needsSnapshot ||= this.awaitsSnapshot && this.position !== null;
    this.awaitsSnapshot = false;
  }

  override lose(): void {
    this.release();
    super.lose();
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
    if (this.status.isKnown === false) {
      this.setStatus({ isKnown: true });
    }
    if (this.position?.epoch !== message.epoch || message.seq > this.position.seq) {
      this.position = position;
    }
  }

  /** The messages after the position, up to `seq` of `epoch`, are lost. */
  reportGap(epoch: string, seq: number): void {
    const before = this.position as Position;
    const missedTo = before.epoch === epoch ? seq : null;
    if (missedTo !== null && missedTo <= before.seq) {
      return;
    }
    const gap = { topic: this.name, epoch: before.epoch, missedFrom: before.seq + 1, missedTo };
    for (const each of [...this.listeners.keys()]) {
      each.gap?.(gap);
    }
  }

  /** The messages since the time that listeners have asked for are lost, up to `seq`. */
  reportLostBeginning(epoch: string, seq: number): void {
    const gap = { topic: this.name, epoch, missedFrom: 1, missedTo: seq };
    for (const [each, at] of [...this.listeners]) {
      if (at === null && each.since !== undefined) {
        each.gap?.(gap);
      }
    }
  }

  /** The server has granted it up to a position: what was before is not for all. */
  grant(position: Position): void {
    this.position = position;
    for (const [listener, at] of this.listeners) {
      if (at === null && !this.#wantsPast(listener)) {
        this.listeners.set(listener, position);
      }
    }
  }

  protected override onNewListener(listener: TopicListener): void {
    // The others had their snapshot already.
    const isLate = this.position !== null || this.awaitsSnapshot;
    this.needsSnapshot ||= isLate && this.#wantsPast(listener);
  }

  protected override startOf(listener: TopicListener): Position | null {
    return this.#wantsPast(listener) ? null : this.position;
  }

  #wantsPast({ last = 0, since }: TopicListener): boolean {
    return isMerged(this.name) || last > 0 || since !== undefined;
  }

  /** The earliest time that a listener without a message asks for. */
  get #sinceTime(): SinceTime | null {
    let earliest: SinceTime | null = null;
    if (!isMerged(this.name)) {
      for (const [{ since }, at] of this.listeners) {
        if (at === null && since !== undefined && since.ts < (earliest?.ts ?? Infinity)) {
          earliest = { ts: since.ts };
        }
      }
    }
    return earliest;
  }
}
