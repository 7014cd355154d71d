/** The subscriptions of a client: one a topic for all who listen, kept over reconnects. */
import type {
  AnyMessage,
  ErrorBody,
  PatternReply,
  Position,
  SinceTime,
  Status,
  Subscribe,
  SubscribeReply,
  TopicReply,
} from "../contract.js";
import type { Visibility } from "../connection/frames.js";
import type { Namespace } from "../connection/namespace.js";
import { backoff, passes } from "../connection/retry.js";
import type { Timers } from "../connection/timers.js";
import { FloorcastError } from "../errors.js";
import { isPattern } from "./match.js";
import { isMerged, positionOf, type Received, STREAMS, topicOf } from "./messages.js";
import { Pattern } from "./pattern.js";
import type { Subscription, TopicListener } from "./subscription.js";
import { Topic } from "./topic.js";

/** Topics of one request: the rate limit counts it as three events, and its reply stays small. */
const TOPICS_PER_REQUEST = 100;
/** Positions in the request of a pattern, which must stay below the server's limit of a message. */
const POSITIONS_PER_PATTERN = 500;
const NAMES_PER_REQUEST = 1_000;
const RESYNC_PAUSE_MS = 1_000;

type Granted = Extract<TopicReply, { status: "CONNECTED" }>;

export class Topics {
  readonly #topics = new Map<string, Topic>();
  readonly #patterns = new Map<string, Pattern>();
  readonly #dirty = new Set<Subscription>();
  #isScheduled = false;
  /** Counts connections: what belongs to an earlier one is void. */
  #life = 0;

  constructor(
    private readonly namespace: Namespace<"/market">,
    private readonly visibility: Visibility,
    private readonly timers: Timers,
  ) {
    for (const stream of STREAMS) {
      namespace.on(stream.toLowerCase(), (message: Received) => this.#onMessage(message));
    }
    namespace.on("status", (status: Status) => this.#onStatus(status));
    namespace.onReady(() => this.#onReady());
    namespace.onDown(() => this.#onDown());
    visibility.onChange(() => this.#all.forEach((each) => this.#touch(each)));
  }

  /** Listen to a topic, or to all that match a pattern, until the returned function is called. */
  add(name: string, listener: TopicListener): () => void {
    const remove = isPattern(name)
      ? this.#addToPattern(name, listener)
      : this.#addToTopic(this.#topics.get(name) ?? this.#newTopic(name), listener);
    this.namespace.start();
    return remove;
  }

  /** Fetch a snapshot, since a listener's state is wrong; false if one is under way. */
  resync(name: string): boolean {
    const topic = this.#topics.get(name);
    if (topic === undefined || topic.needsSnapshot || topic.awaitsSnapshot) {
      return false;
    }
    topic.needsSnapshot = true;
    // A server whose checksums never match must not be asked without end.
    const now = performance.now();
    const at = Math.max(now, topic.resyncedAt + RESYNC_PAUSE_MS);
    topic.resyncedAt = at;
    if (at === now) {
      this.#touch(topic);
    } else {
      this.#pause(topic, at - now);
    }
    return true;
  }

  /** The topics and patterns that the server serves now. */
  get subscribed(): string[] {
    return this.#all.filter((each) => each.asked !== null).map((each) => each.name);
  }

  get #all(): Subscription[] {
    return [...this.#patterns.values(), ...this.#topics.values()];
  }

  // --- listeners

  #addToTopic(topic: Topic, listener: TopicListener): () => void {
    topic.addListener(listener);
    this.#touch(topic);
    return () => {
      topic.removeListener(listener);
      this.#touch(topic);
    };
  }

  #addToPattern(name: string, listener: TopicListener): () => void {
    let pattern = this.#patterns.get(name);
    if (pattern === undefined) {
      pattern = new Pattern(name);
      this.#patterns.set(name, pattern);
    }
    const added = pattern;
    added.addListener(listener);
    this.#matchedBy(added).forEach((topic) => this.#attach(topic, added, listener));
    this.#touch(added);
    return () => {
      added.removeListener(listener);
      this.#matchedBy(added).forEach((topic) => this.#detach(topic, added, listener));
      this.#touch(added);
    };
  }

  #newTopic(name: string): Topic {
    const topic = new Topic(name);
    this.#topics.set(name, topic);
    for (const pattern of this.#patternsOf(name)) {
      if (pattern.status.subscription !== "error") {
        pattern.listeners.forEach((_, listener) => this.#attach(topic, pattern, listener));
      }
    }
    return topic;
  }

  #attach(topic: Topic, pattern: Pattern, listener: TopicListener): void {
    const matched = pattern.matchedListener(topic.name, listener);
    if (!topic.listeners.has(matched)) {
      topic.addListener(matched);
      this.#touch(topic);
    }
  }

  #detach(topic: Topic, pattern: Pattern, listener: TopicListener): void {
    topic.removeListener(pattern.matchedListener(topic.name, listener));
    this.#touch(topic);
  }

  #matchedBy(pattern: Pattern): Topic[] {
    return [...this.#topics.values()].filter((topic) => pattern.matches(topic.name));
  }

  #patternsOf(topic: string): Pattern[] {
    return [...this.#patterns.values()].filter((pattern) => pattern.matches(topic));
  }

  // --- requests

  #touch(subscription: Subscription): void {
    this.#dirty.add(subscription);
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      // After all of this turn: StrictMode mounts everything twice, a page swaps its lists.
      this.timers.after(0, () => this.#flush());
    }
  }

  #pause(subscription: Subscription, milliseconds: number): void {
    const life = this.#life;
    subscription.isBusy = true;
    this.timers.after(milliseconds, () => this.#done([subscription], life));
  }

  #done(subscriptions: Subscription[], life: number): void {
    for (const each of subscriptions) {
      if (life === this.#life) {
        each.isBusy = false;
      }
      this.#touch(each);
      if (each instanceof Pattern) {
        this.#matchedBy(each).forEach((topic) => this.#touch(topic));
      }
    }
  }

  #flush(): void {
    this.#isScheduled = false;
    const released: Subscription[] = [];
    const groups = new Map<string, { interval: number; last: number; topics: Topic[] }>();
    // A pattern may serve the topics behind it, or not any more.
    for (const pattern of this.#dirty) {
      if (pattern instanceof Pattern) {
        this.#dirty.delete(pattern);
        this.#settle(pattern, released, (interval) => this.#subscribePattern(pattern, interval));
      }
    }
    for (const topic of this.#dirty) {
      if (topic instanceof Topic) {
        this.#dirty.delete(topic);
        this.#settle(topic, released, (interval) => {
          const last = topic.isFresh ? topic.last : 0;
          const key = `${interval} ${last}`;
          const group = groups.get(key) ?? { interval, last, topics: [] };
          group.topics.push(topic);
          groups.set(key, group);
        });
      }
    }
    this.#unsubscribe(released);
    for (const { interval, last, topics } of groups.values()) {
      for (let first = 0; first < topics.length; first += TOPICS_PER_REQUEST) {
        this.#subscribe(topics.slice(first, first + TOPICS_PER_REQUEST), interval, last);
      }
    }
  }

  #settle(
    subscription: Subscription,
    released: Subscription[],
    ask: (interval: number) => void,
  ): void {
    const interval = subscription.wanted(this.visibility.isHidden);
    subscription.forgetLeft();
    if (subscription.isBusy) {
      return;
    }
    if (interval === null) {
      this.#release(subscription, released);
    } else if (
      this.namespace.isOnline &&
      subscription.mustAsk(interval) &&
      !(subscription instanceof Topic && this.#isLeftToPattern(subscription))
    ) {
      ask(interval);
    }
  }

  /** The answer of a pattern will have the topic. */
  #isLeftToPattern(topic: Topic): boolean {
    const { isHidden } = this.visibility;
    return topic.isOnlyMatched && this.#patternsOf(topic.name).some((each) => each.isDue(isHidden));
  }

  #release(subscription: Subscription, released: Subscription[]): void {
    if (subscription instanceof Pattern) {
      this.#releasePattern(subscription, released);
    } else if (subscription instanceof Topic) {
      this.#releaseTopic(subscription, released);
    }
    if (subscription.status.subscription !== "error") {
      subscription.setStatus({ subscription: "paused" });
    }
  }

  #releaseTopic(topic: Topic, released: Subscription[]): void {
    // One that a pattern has brought ends with the pattern.
    const isNamed = topic.asked !== null && topic.isNamed;
    topic.release();
    if (isNamed) {
      released.push(topic);
    } else if (topic.listeners.size === 0) {
      this.#topics.delete(topic.name);
    }
  }

  #releasePattern(pattern: Pattern, released: Subscription[]): void {
    if (pattern.asked !== null) {
      released.push(pattern);
      pattern.asked = null;
      for (const topic of this.#matchedBy(pattern)) {
        const others = this.#patternsOf(topic.name).filter((each) => each.asked !== null);
        if (!topic.isNamed && others.length === 0) {
          topic.release();
        }
        this.#touch(topic);
      }
    } else if (pattern.listeners.size === 0) {
      this.#patterns.delete(pattern.name);
    }
  }

  #unsubscribe(subscriptions: Subscription[]): void {
    for (let first = 0; first < subscriptions.length; first += NAMES_PER_REQUEST) {
      const life = this.#life;
      const some = subscriptions.slice(first, first + NAMES_PER_REQUEST);
      some.forEach((each) => (each.isBusy = true));
      const names = some.map((each) => each.name);
      this.namespace.send("unsubscribe", { topics: names }, () => this.#done(some, life));
    }
  }

  #subscribe(topics: Topic[], interval: number, last: number): void {
    topics.forEach((each) => (each.isNamed = true));
    const names = topics.map((each) => each.name);
    this.#request(names, topics, interval, last, (reply) => this.#onReply(topics, reply));
  }

  #subscribePattern(pattern: Pattern, interval: number): void {
    const known = this.#matchedBy(pattern).filter(
      (each) => each.isOnlyMatched && !each.isNamed && !each.isBusy && each.mustAsk(interval),
    );
    const topics = known.slice(0, POSITIONS_PER_PATTERN);
    pattern.isBusy = true;
    pattern.asked = interval;
    this.#request([pattern.name], topics, interval, pattern.last, (reply) =>
      this.#onPatternReply(pattern, topics, reply),
    );
  }

  #request(
    names: string[],
    topics: Topic[],
    interval: number,
    last: number,
    answered: (reply: SubscribeReply | null) => void,
  ): void {
    const life = this.#life;
    const since: Record<string, Position | SinceTime> = {};
    for (const topic of topics) {
      const start = topic.ask(interval);
      if (start !== null) {
        since[topic.name] = start;
      }
    }
    const newest = last > 0 ? { last } : {};
    const request: Subscribe = { topics: names, interval_ms: interval, since, ...newest };
    this.namespace.send("subscribe", request, (reply) => {
      if (life === this.#life) {
        answered(reply);
      }
    });
  }

  // --- replies

  #onReply(topics: Topic[], reply: SubscribeReply | null): void {
    for (const topic of topics) {
      topic.isBusy = false;
      this.#onAnswer(topic, reply?.topics?.[topic.name] as TopicReply | undefined, refusal(reply));
      this.#touch(topic);
    }
  }

  #onPatternReply(pattern: Pattern, topics: Topic[], reply: SubscribeReply | null): void {
    const answer = reply?.topics?.[pattern.name];
    pattern.isBusy = false;
    topics.forEach((each) => (each.isBusy = false));
    if (answer !== undefined && "topics" in answer) {
      this.#onMatched(pattern, topics, answer);
    } else {
      topics.forEach((each) => each.release());
      pattern.asked = null;
      this.#onRefused(pattern, answer?.status === "ERROR" ? answer.error : refusal(reply));
    }
    this.#touch(pattern);
    this.#matchedBy(pattern).forEach((each) => this.#touch(each));
  }

  #onMatched(pattern: Pattern, topics: Topic[], answer: PatternReply): void {
    const { asked } = pattern;
    const error = answer.limit === undefined ? null : FloorcastError.of(answer.limit);
    pattern.attempt = 0;
    pattern.setStatus({ subscription: "live", error, intervalMs: asked ?? 0 });
    for (const topic of this.#matchedBy(pattern)) {
      pattern.listeners.forEach((_, listener) => this.#attach(topic, pattern, listener));
    }
    for (const [name, each] of Object.entries(answer.topics)) {
      if (!this.#topics.has(name) && pattern.listeners.size > 0) {
        const topic = this.#newTopic(name);
        topic.ask(asked ?? 0);
        topic.isBusy = false;
        this.#onAnswer(topic, each, null);
      }
    }
    for (const topic of topics) {
      const each = answer.topics[topic.name];
      if (each === undefined) {
        // It does not match any more, or the limit is reached: asked for by its name.
        topic.release();
      } else {
        this.#onAnswer(topic, each, null);
      }
    }
  }

  #onAnswer(topic: Topic, answer: TopicReply | undefined, error: ErrorBody | null): void {
    if (answer?.status === "CONNECTED") {
      this.#onGranted(topic, answer);
    } else {
      topic.release();
      this.#onRefused(topic, answer?.error ?? error);
    }
  }

  #onGranted(topic: Topic, answer: Granted): void {
    const { epoch, seq, snapshot, missed, recovered, interval_ms: intervalMs } = answer;
    const before = topic.position;
    const wasFresh = topic.awaitsSnapshot;
    const first = missed[0] ?? snapshot;
    const lostTo = first === null || first === undefined ? seq : first.seq - 1;
    topic.attempt = 0;
    topic.awaitsSnapshot = false;
    topic.setStatus({
      subscription: "live",
      error: null,
      intervalMs,
      feed: topic.status.feed ?? answer.state ?? "LIVE",
      isKnown: answer.known ?? null,
    });
    if (!recovered && !isMerged(topic.name)) {
      if (wasFresh && lostTo > 0) {
        topic.reportLostBeginning(epoch, lostTo);
      } else if (before !== null && !wasFresh) {
        topic.reportGap(epoch, lostTo);
      }
    }
    missed.forEach((message) => topic.deliver(message));
    if (snapshot !== null) {
      topic.deliver(snapshot);
    }
    topic.grant({ epoch, seq });
  }

  #onRefused(subscription: Subscription, error: ErrorBody | null): void {
    if (error === null || passes(error)) {
      const delay = error?.retry_after_ms ?? backoff(subscription.attempt);
      subscription.attempt += 1;
      this.#pause(subscription, delay);
    } else {
      this.#fail(subscription, error);
    }
  }

  #fail(subscription: Subscription, error: ErrorBody): void {
    subscription.fail(FloorcastError.of(error));
    if (subscription instanceof Pattern) {
      for (const topic of this.#matchedBy(subscription)) {
        subscription.listeners.forEach((_, each) => this.#detach(topic, subscription, each));
      }
    }
  }

  // --- events

  #onMessage(message: Received): void {
    const name = topicOf(message);
    const topic = this.#topics.get(name);
    if (topic === undefined) {
      this.#onNewTopic(name, message);
      return;
    }
    // Without a position the reply to `subscribe` is still due: it has this message too.
    if (topic.position === null || topic.asked === null) {
      return;
    }
    const { epoch, seq } = topic.position;
    const isSameEpoch = message.epoch === epoch;
    if (message.type === "snapshot") {
      if (!isSameEpoch || message.seq >= seq) {
        this.#onSnapshot(topic, message);
      }
    } else if (!isSameEpoch || message.prev > seq) {
      this.#onMissed(topic, message);
    } else if (message.type === "update" && message.seq > seq) {
      topic.deliver(message);
    }
  }

  /** A pattern brings a topic that did not exist before. */
  #onNewTopic(name: string, message: Received): void {
    const intervals = this.#patternsOf(name)
      .filter((each) => each.asked !== null && each.listeners.size > 0)
      .map((each) => each.asked as number);
    if (intervals.length === 0) {
      return;
    }
    const topic = this.#newTopic(name);
    if (message.type === "heartbeat" || (message.type === "update" && message.prev > 0)) {
      // Something was before: it is asked for by its name.
      return;
    }
    const intervalMs = Math.min(...intervals);
    topic.asked = intervalMs;
    topic.position = positionOf(message);
    topic.setStatus({ subscription: "live", feed: "LIVE", intervalMs, isKnown: true });
    topic.deliver(message);
  }

  #onSnapshot(topic: Topic, message: AnyMessage): void {
    const { epoch, seq } = topic.position as Position;
    if (!isMerged(topic.name) && (message.epoch !== epoch || message.seq > seq + 1)) {
      // It takes the place of messages that are gone.
      topic.reportGap(message.epoch, message.seq - 1);
    }
    topic.deliver(message);
  }

  #onMissed(topic: Topic, message: Received): void {
    if (message.type === "update" && message.stream === "PRICE") {
      // The latest wins, whatever was before.
      topic.deliver(message);
    } else if (!topic.isBusy) {
      topic.asked = null;
      this.#touch(topic);
    }
  }

  #onStatus(status: Status): void {
    const name = topicOf(status);
    const topic = this.#topics.get(name);
    const error = status.error ?? { code: "server.internal", message: "the subscription ended" };
    if (topic === undefined) {
      if (status.state === "ERROR") {
        // A new topic that matches, but is too much.
        this.#patternsOf(name).forEach((each) => each.setStatus({ error: FloorcastError.of(error) }));
      }
    } else if (topic.asked !== null && status.state === "ERROR") {
      topic.release();
      topic.fail(FloorcastError.of(error));
    } else if (topic.asked !== null) {
      topic.setStatus({ feed: status.state });
    }
  }

  #onReady(): void {
    for (const each of this.#all) {
      each.attempt = 0;
      if (each.status.subscription === "error") {
        // A new connection may have another token.
        each.setStatus({ subscription: "pending", error: null });
      }
      this.#touch(each);
    }
  }

  #onDown(): void {
    this.#life += 1;
    this.#all.forEach((each) => each.lose());
  }
}

function refusal(reply: SubscribeReply | null): ErrorBody | null {
  return reply?.ok === false ? reply.error : null;
}
