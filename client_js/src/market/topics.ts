/** The subscriptions of a client: one a topic for all who listen, kept over reconnects. */
import type {
  AnyMessage,
  ErrorBody,
  FeedState,
  Position,
  Status,
  Subscribe,
  SubscribeReply,
  TopicReply,
} from "../contract.js";
import type { Visibility } from "../connection/frames.js";
import type { Namespace } from "../connection/namespace.js";
import { backoff } from "../connection/retry.js";
import type { Timers } from "../connection/timers.js";
import { FloorcastError } from "../errors.js";
import { type Gap, isMerged, type Received, STREAMS, topicOf } from "./messages.js";
import { Topic } from "./topic.js";

/** Topics of one request: the rate limit counts it as three events, and its reply stays small. */
const TOPICS_PER_REQUEST = 100;
const RESYNC_PAUSE_MS = 1_000;

export interface TopicStatus {
  /** `error` after a refusal: `error` says why, and the client does not ask again. */
  readonly subscription: "pending" | "live" | "offline" | "paused" | "error";
  /** The freshness of the feed; null while unknown. */
  readonly feed: FeedState | null;
  readonly error: FloorcastError | null;
  /** The interval that the server granted. */
  readonly intervalMs: number;
}

export interface TopicListener {
  /** At most one message in so many ms: 0, 100, 250 or 1000. Merged streams only. */
  intervalMs?: number;
  /** The newest kept messages to begin with. */
  last?: number;
  /** Unsubscribe while the page is hidden. */
  pausesHidden?: boolean;
  /** It begins anew: what came before does not count. */
  begin?(): void;
  message?(message: AnyMessage): void;
  /** Messages of a kept stream are lost. */
  gap?(gap: Gap): void;
  status?(status: TopicStatus): void;
}

type Granted = Extract<TopicReply, { status: "CONNECTED" }>;

export class Topics {
  readonly #topics = new Map<string, Topic>();
  readonly #dirty = new Set<Topic>();
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
    visibility.onChange(() => this.#topics.forEach((topic) => this.#touch(topic)));
  }

  /** Listen to a topic until the returned function is called. */
  add(name: string, listener: TopicListener): () => void {
    let topic = this.#topics.get(name);
    if (topic === undefined) {
      topic = new Topic(name);
      this.#topics.set(name, topic);
    }
    const added = topic;
    added.addListener(listener);
    this.#touch(added);
    this.namespace.start();
    return () => {
      added.removeListener(listener);
      this.#touch(added);
    };
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

  /** The topics that the server serves now. */
  get subscribed(): string[] {
    const topics = [...this.#topics.values()];
    return topics.filter((each) => each.asked !== null).map((each) => each.name);
  }

  #touch(topic: Topic): void {
    this.#dirty.add(topic);
    if (!this.#isScheduled) {
      this.#isScheduled = true;
      // After all of this turn: StrictMode mounts everything twice, a page swaps its lists.
      this.timers.after(0, () => this.#flush());
    }
  }

  #pause(topic: Topic, milliseconds: number): void {
    const life = this.#life;
    topic.isBusy = true;
    this.timers.after(milliseconds, () => this.#done([topic], life));
  }

  #done(topics: Topic[], life: number): void {
    for (const topic of topics) {
      if (life === this.#life) {
        topic.isBusy = false;
      }
      this.#touch(topic);
    }
  }

  #flush(): void {
    this.#isScheduled = false;
    const released: Topic[] = [];
    const groups = new Map<string, { interval: number; last: number; topics: Topic[] }>();
    for (const topic of this.#dirty) {
      const interval = topic.wanted(this.visibility.isHidden);
      topic.left.clear();
      if (topic.isBusy) {
        continue;
      }
      if (interval === null) {
        this.#release(topic, released);
      } else if (this.namespace.isOnline && topic.mustAsk(interval)) {
        const last = topic.isFresh ? topic.last : 0;
        const key = `${interval} ${last}`;
        const group = groups.get(key) ?? { interval, last, topics: [] };
        group.topics.push(topic);
        groups.set(key, group);
      }
    }
    this.#dirty.clear();
    this.#unsubscribe(released);
    for (const { interval, last, topics } of groups.values()) {
      for (let first = 0; first < topics.length; first += TOPICS_PER_REQUEST) {
        this.#subscribe(topics.slice(first, first + TOPICS_PER_REQUEST), interval, last);
      }
    }
  }

  #release(topic: Topic, released: Topic[]): void {
    if (topic.asked !== null) {
      released.push(topic);
      topic.asked = null;
    } else if (topic.listeners.size === 0) {
      this.#topics.delete(topic.name);
    }
    if (topic.status.subscription !== "error") {
      topic.setStatus({ subscription: "paused" });
    }
  }

  #unsubscribe(topics: Topic[]): void {
    if (topics.length === 0) {
      return;
    }
    const life = this.#life;
    topics.forEach((each) => (each.isBusy = true));
    const names = topics.map((each) => each.name);
    this.namespace.send("unsubscribe", { topics: names }, () => this.#done(topics, life));
  }

  #subscribe(topics: Topic[], interval: number, last: number): void {
    const life = this.#life;
    const since: Record<string, Position> = {};
    for (const topic of topics) {
      topic.isBusy = true;
      if (!topic.isFresh && topic.position !== null) {
        since[topic.name] = topic.position;
      } else {
        topic.needsSnapshot = false;
        topic.awaitsSnapshot = true;
      }
      topic.asked = interval;
    }
    const request: Subscribe = {
      topics: topics.map((each) => each.name),
      interval_ms: interval,
      since,
      ...(last > 0 ? { last } : {}),
    };
    this.namespace.send("subscribe", request, (reply) => {
      if (life === this.#life) {
        this.#onReply(topics, reply);
      }
    });
  }

  #onReply(topics: Topic[], reply: SubscribeReply | null): void {
    for (const topic of topics) {
      topic.isBusy = false;
      // This client names no patterns.
      const answer = reply?.topics?.[topic.name] as TopicReply | undefined;
      if (answer?.status === "CONNECTED") {
        this.#onGranted(topic, answer);
      } else {
        topic.asked = null;
        topic.awaitsSnapshot = false;
        this.#onRefused(topic, answer?.error ?? (reply?.ok === false ? reply.error : null));
      }
      this.#touch(topic);
    }
  }

  #onGranted(topic: Topic, answer: Granted): void {
    const { epoch, seq, snapshot, missed, recovered, interval_ms: intervalMs } = answer;
    const before = topic.position;
    const wasFresh = topic.awaitsSnapshot;
    topic.attempt = 0;
    topic.awaitsSnapshot = false;
    topic.setStatus({
      subscription: "live",
      error: null,
      intervalMs,
      feed: topic.status.feed ?? "LIVE",
    });
    if (before !== null && !wasFresh && !recovered && !isMerged(topic.name)) {
      topic.reportGap(epoch, seq);
    }
    missed.forEach((message) => topic.deliver(message));
    if (snapshot !== null) {
      topic.deliver(snapshot);
    }
    topic.position = { epoch, seq };
  }

  #onRefused(topic: Topic, error: ErrorBody | null): void {
    if (error === null || error.retry_after_ms !== undefined || error.code.startsWith("server.")) {
      const delay = error?.retry_after_ms ?? backoff(topic.attempt);
      topic.attempt += 1;
      this.#pause(topic, delay);
    } else {
      topic.fail(FloorcastError.of(error));
    }
  }

  #onMessage(message: Received): void {
    const topic = this.#topics.get(topicOf(message));
    // Without a position the reply to `subscribe` is still due: it has this message too.
    if (topic === undefined || topic.position === null || topic.asked === null) {
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
    const topic = this.#topics.get(topicOf(status));
    if (topic === undefined || topic.asked === null) {
      return;
    }
    if (status.state === "ERROR") {
      const error = status.error ?? { code: "server.internal", message: "the subscription ended" };
      topic.asked = null;
      topic.fail(FloorcastError.of(error));
    } else {
      topic.setStatus({ feed: status.state });
    }
  }

  #onReady(): void {
    for (const topic of this.#topics.values()) {
      topic.attempt = 0;
      if (topic.status.subscription === "error") {
        // A new connection may have another token.
        topic.setStatus({ subscription: "pending", error: null });
      }
      this.#touch(topic);
    }
  }

  #onDown(): void {
    this.#life += 1;
    for (const topic of this.#topics.values()) {
      topic.asked = null;
      topic.isBusy = false;
      topic.needsSnapshot ||= topic.awaitsSnapshot;
      topic.awaitsSnapshot = false;
      if (topic.status.subscription !== "error") {
        topic.setStatus({ subscription: "offline", feed: null });
      }
    }
  }
}
