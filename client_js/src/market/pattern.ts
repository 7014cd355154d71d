/** A pattern of a client, such as `PRICE:*`: its listeners listen to each topic that matches. */
import type { AnyMessage } from "../contract.js";
import { topicMatcher } from "./match.js";
import type { Gap } from "./messages.js";
import { Subscription, type TopicListener, type TopicStatus } from "./subscription.js";

/** Listens to one topic for a listener of a pattern. */
export class MatchedListener implements TopicListener {
  readonly intervalMs: number;
  readonly last: number;
  readonly pausesHidden: boolean;

  constructor(
    private readonly topic: string,
    private readonly listener: TopicListener,
  ) {
    this.intervalMs = listener.intervalMs ?? 0;
    this.last = listener.last ?? 0;
    this.pausesHidden = listener.pausesHidden ?? false;
  }

  message(message: AnyMessage): void {
    this.listener.message?.(message);
  }

  gap(gap: Gap): void {
    this.listener.gap?.(gap);
  }

  status(status: TopicStatus): void {
    this.listener.topicStatus?.(this.topic, status);
  }
}

export class Pattern extends Subscription {
  readonly matches: (topic: string) => boolean;
  readonly #matched = new Map<TopicListener, Map<string, MatchedListener>>();

  constructor(name: string) {
    super(name);
    this.matches = topicMatcher(name);
  }

  /** What listens to a topic for a listener of this pattern; the same one each time. */
  matchedListener(topic: string, listener: TopicListener): MatchedListener {
    let matched = this.#matched.get(listener);
    if (matched === undefined) {
      matched = new Map();
      this.#matched.set(listener, matched);
    }
    let each = matched.get(topic);
    if (each === undefined) {
      each = new MatchedListener(topic, listener);
      matched.set(topic, each);
    }
    return each;
  }

  override forgetLeft(): void {
    for (const listener of this.left.keys()) {
      if (!this.listeners.has(listener)) {
        this.#matched.delete(listener);
      }
    }
    super.forgetLeft();
  }

  /** Whether the server's answer about its topics is still to come. */
  isDue(isHidden: boolean): boolean {
    const isWanted = this.wanted(isHidden) !== null && this.status.subscription !== "error";
    return isWanted && (this.asked === null || this.isBusy);
  }
}
