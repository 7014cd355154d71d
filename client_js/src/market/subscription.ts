/** What a client subscribes to, a topic or a pattern: who listens, and how far the request is. */
import type { AnyMessage, FeedState, Position } from "../contract.js";
import type { FloorcastError } from "../errors.js";
import type { Gap } from "./messages.js";

export interface TopicStatus {
  /** `error` after a refusal: `error` says why, and the client does not ask again. */
  readonly subscription: "pending" | "live" | "offline" | "paused" | "error";
  /** The freshness of the feed; null while unknown, and for a pattern. */
  readonly feed: FeedState | null;
  /** Of a pattern that is live: why some topics that match are left out. */
  readonly error: FloorcastError | null;
  /** The interval that the server granted. */
  readonly intervalMs: number;
  /** False if nobody has ever published there; null while unknown, and for a pattern. */
  readonly isKnown: boolean | null;
}

export interface TopicListener {
  /** At most one message in so many ms: 0, 100, 250 or 1000. Merged streams only. */
  intervalMs?: number;
  /** The newest kept messages to begin with. */
  last?: number;
  /** Begin with what the server received at this time, in ms, or later. Kept streams only. */
  since?: { readonly ts: number };
  /** Unsubscribe while the page is hidden. */
  pausesHidden?: boolean;
  /** It begins anew: what came before does not count. */
  begin?(): void;
  message?(message: AnyMessage): void;
  /** Messages of a kept stream are lost. */
  gap?(gap: Gap): void;
  status?(status: TopicStatus): void;
  /** The status of one topic of a pattern. */
  topicStatus?(topic: string, status: TopicStatus): void;
}

export abstract class Subscription {
  /** Each listener, and how far it is. */
  readonly listeners = new Map<TopicListener, Position | null>();
  /** Listeners that left in this turn, and may be back at once: React's StrictMode. */
  readonly left = new Map<TopicListener, Position | null>();
  status: TopicStatus = {
    subscription: "pending",
    feed: null,
    error: null,
    intervalMs: 0,
    isKnown: null,
  };
  /** The interval of the subscription on this connection, null without one. */
  asked: number | null = null;
  /** A request is in flight, or must wait. */
  isBusy = false;
  attempt = 0;

  constructor(readonly name: string) {}

  addListener(listener: TopicListener): void {
    if (this.listeners.size === 0 && this.status.subscription === "error") {
      this.status = { ...this.status, subscription: "pending", error: null };
    }
    if (!this.left.has(listener)) {
      listener.begin?.();
      this.onNewListener(listener);
    }
    this.listeners.set(listener, this.left.get(listener) ?? this.startOf(listener));
    listener.status?.(this.status);
  }

  removeListener(listener: TopicListener): void {
    const at = this.listeners.get(listener);
    if (at !== undefined) {
      this.left.set(listener, at);
      this.listeners.delete(listener);
    }
  }

  /** Those who left in this turn are gone. */
  forgetLeft(): void {
    this.left.clear();
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
    return this.asked !== interval && this.status.subscription !== "error";
  }

  /** The connection is lost. */
  lose(): void {
    this.asked = null;
    this.isBusy = false;
    if (this.status.subscription !== "error") {
      this.setStatus({ subscription: "offline", feed: null });
    }
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

  protected onNewListener(_listener: TopicListener): void {}

  /** How far a new listener counts as being. */
  protected startOf(_listener: TopicListener): Position | null {
    return null;
  }
}
