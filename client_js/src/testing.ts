/**
 * A server in memory for tests of code that uses the client; it needs no network:
 *
 *     const server = new MockServer();
 *     const client = new Client("http://mock", { open: server.open });
 *     server.publish("PRICE:BTCUSDT", { bid: "1", ask: "2", last: "1", volume: "5" });
 */
import type { ManagerLike, OpenManager, SocketLike } from "./connection/socket.js";
import type { NamespaceName } from "./connection/namespace.js";
import type {
  AnyMessage,
  ErrorBody,
  FeedState,
  Instrument,
  ListInstruments,
  Participant,
  Position,
  SinceTime,
  Stream,
  WillRequest,
} from "./contract.js";
import { newId } from "./ids.js";
import { Book, type Level } from "./market/book.js";
import { isPattern, matcher, topicMatcher } from "./market/match.js";

type Body = Record<string, unknown>;
type Handler = (...values: any[]) => void;

export interface MockRequest {
  namespace: NamespaceName;
  event: string;
  payload: any;
}

interface LoggedTopic {
  epoch: string;
  entries: AnyMessage[];
  book: Book | null;
}

interface LoggedSession {
  epoch: string;
  messages: Body[];
  participants: Map<string, Participant>;
}

interface MockPattern {
  matches(topic: string): boolean;
  intervalMs: number;
  /** Those that it has brought, and not the client by name. */
  topics: Set<string>;
}

const KEPT_MESSAGES = 1_000;

export class MockServer {
  /** What clients have asked, oldest first. */
  readonly requests: MockRequest[] = [];
  /** Answers in place of the mock's own, by event; undefined leaves it to the mock. */
  readonly answers: Record<string, (payload: any) => Body | undefined> = {};
  /** Refuses connects to a namespace while it has an error. */
  readonly refusals: Partial<Record<NamespaceName, ErrorBody | undefined>> = {};
  /** The tokens of the connects. */
  readonly tokens: (string | undefined)[] = [];
  readonly #sockets = new Set<MockSocket>();
  readonly #topics = new Map<string, LoggedTopic>();
  readonly #sessions = new Map<string, LoggedSession>();
  readonly #instruments = new Map<string, Instrument>();
  #isUp = true;
  #drops = 0;
  #epoch = 1;
  #will: WillRequest | null = null;

  constructor(
    readonly userId = "ann",
    /** The server's clock, in ms. */
    readonly now: () => number = Date.now,
  ) {}

  /** Pass it to the client as `open`. */
  readonly open: OpenManager = () => new MockManager(this, this.#sockets);

  get isUp(): boolean {
    return this.#isUp;
  }

  /** Requests of one event. */
  requestsOf(event: string): any[] {
    return this.requests.filter((each) => each.event === event).map((each) => each.payload);
  }

  /** Topics that clients are subscribed to now, with the interval. */
  get subscriptions(): Map<string, number> {
    return new Map([...this.#sockets].flatMap((each) => [...each.subscriptions]));
  }

  /** Patterns that clients are subscribed to now, with the interval. */
  get patterns(): Map<string, number> {
    const all = [...this.#sockets].flatMap((each) => [...each.patterns]);
    return new Map(all.map(([name, { intervalMs }]) => [name, intervalMs]));
  }

  /** The will that the client has set on this connection. */
  get will(): WillRequest | null {
    return this.#will;
  }

  /** Publish a message of a topic, and return its position. */
  publish(topic: string, data: Body, type: "update" | "snapshot" = "update"): Position {
    const log = this.#topic(topic);
    const [stream, rest = null] = topic.split(":") as [Stream, string?];
    const [symbol, view] = rest?.split("@") ?? [null];
    const seq = (log.entries.at(-1)?.seq ?? 0) + 1;
    const message = {
      stream,
      symbol: symbol ?? null,
      ...(view === undefined ? {} : { view }),
      type: seq === 1 && stream === "ORDERBOOK" ? "snapshot" : type,
      epoch: log.epoch,
      seq,
      prev: seq - 1,
      ts: this.now(),
      data,
    } as unknown as AnyMessage;
    if (message.stream === "ORDERBOOK") {
      log.book ??= new Book();
      const { checksum: _, ...levels } = message.data;
      log.book.apply({ ...message, data: levels });
      message.data = { checksum: log.book.checksum(), ...message.data };
    }
    const isNew = log.entries.length === 0;
    log.entries = [...log.entries, message].slice(-KEPT_MESSAGES);
    this.#emitTo(topic, stream.toLowerCase(), message);
    if (isNew) {
      this.#bringToPatterns(topic, stream.toLowerCase(), message);
    }
    return { epoch: log.epoch, seq };
  }

  /** Lose the next events on their way to clients, as a fault of the server would. */
  drop(count: number): void {
    this.#drops = count;
  }

  /** Send the state of a topic's feed. */
  setState(topic: string, state: FeedState, error?: ErrorBody): void {
    const [stream, symbol = null] = topic.split(":");
    this.#emitTo(topic, "status", { stream, symbol, state, ...(error ? { error } : {}) });
  }

  /** Set what is known of a symbol; clients that follow it hear of it. */
  setInstrument(symbol: string, fields: Partial<Instrument> = {}): void {
    const before = this.#instruments.get(symbol) ?? { symbol, status: "OPEN", streams: [] };
    const instrument = { ...before, ...fields, symbol } as Instrument;
    this.#instruments.set(symbol, instrument);
    this.emit("/market", "instrument", instrument);
  }

  /** Lose all history: the next positions have another epoch. */
  forget(): void {
    this.#epoch += 1;
    this.#topics.clear();
    this.#sessions.clear();
  }

  /** A message of another user, or one of this user's other devices. */
  say(sessionId: string, userId: string, data: Body, id = newId()): Body {
    const log = this.#session(sessionId);
    const seq = log.messages.length + 1;
    const { epoch } = log;
    const message = { session_id: sessionId, epoch, seq, id, user_id: userId, data, ts: this.now() };
    log.messages.push(message);
    this.#emitToMembers(sessionId, "message", message);
    return message;
  }

  /** Another user joins a session. */
  enter(sessionId: string, userId: string): void {
    const { participants } = this.#session(sessionId);
    participants.set(userId, { user_id: userId, connections: 1, joined_at: this.now() });
    this.#emitToMembers(sessionId, "user_joined", this.#change(sessionId, userId));
  }

  /** Another user leaves a session. */
  exit(sessionId: string, userId: string): void {
    this.#session(sessionId).participants.delete(userId);
    this.#emitToMembers(sessionId, "user_left", this.#change(sessionId, userId));
  }

  /** A signal of another user. */
  signal(sessionId: string, userId: string, data: Body): void {
    const signal = { session_id: sessionId, user_id: userId, data, ts: this.now() };
    this.#emitToMembers(sessionId, "signal", signal);
  }

  /** Close a session, or kick this user out of it. */
  end(sessionId: string, reason: "closed" | "kicked" | "forbidden" = "closed"): void {
    const closed = { session_id: sessionId, reason, ts: this.now() };
    this.#emitToMembers(sessionId, "session_closed", closed);
    this.#sockets.forEach((each) => each.sessions.delete(sessionId));
  }

  /** Send a notice; resolves true once the client acknowledges a critical one. */
  notify(event: string, data: Body, critical = false): Promise<boolean> {
    const id = newId();
    const notice = { id, event, data, critical, ts: this.now() };
    return new Promise((resolve) =>
      this.emit("/session", "notification", notice, ...(critical ? [() => resolve(true)] : [])),
    );
  }

  /** Send any event to all connections of a namespace. */
  emit(namespace: NamespaceName, event: string, ...values: unknown[]): void {
    for (const socket of this.#sockets) {
      if (socket.name === namespace && socket.connected) {
        socket.receive(event, ...values);
      }
    }
  }

  /** Say goodbye to all, and end their connections. */
  goodbye(code: string, reconnect = true): void {
    const goodbye = { code, message: code, reconnect, after_ms: 0 };
    for (const namespace of ["/market", "/session"] as const) {
      this.emit(namespace, "goodbye", goodbye);
    }
    this.#sockets.forEach((each) => each.lose(reconnect));
  }

  /** Cut all connections, and take none until `restore`. */
  cut(): void {
    this.#isUp = false;
    this.#sockets.forEach((each) => each.lose(true));
  }

  /** Take connections again: those that were cut come back. */
  restore(): void {
    this.#isUp = true;
    this.#sockets.forEach((each) => each.comeBack());
  }

  /** @internal */
  connected(namespace: NamespaceName): void {
    if (namespace === "/market") {
      this.#will = null;
    }
  }

  /** @internal */
  takesDrop(): boolean {
    this.#drops -= 1;
    return this.#drops >= 0;
  }

  /** @internal */
  handle(socket: MockSocket, event: string, payload: any): Body {
    this.requests.push({ namespace: socket.name, event, payload });
    return this.answers[event]?.(payload) ?? this.#answer(socket, event, payload);
  }

  #answer(socket: MockSocket, event: string, payload: any): Body {
    switch (event) {
      case "subscribe":
        return { ok: true, topics: this.#subscribe(socket, payload) };
      case "unsubscribe":
        payload.topics.forEach((topic: string) => this.#unsubscribe(socket, topic));
        return { ok: true, topics: {} };
      case "instruments":
        return { ok: true, instruments: this.#listed(payload), has_more: false };
      case "publish":
        return {
          ok: true,
          positions: payload.messages.map((each: any) => this.publish(each.topic, each.data)),
        };
      case "will":
        this.#will = payload.messages === null ? null : payload;
        return { ok: true };
      case "join":
        return this.#join(socket, payload);
      case "leave":
        socket.sessions.delete(payload.session_id);
        this.#session(payload.session_id).participants.delete(this.userId);
        return { ok: true };
      case "send":
        return this.#send(payload);
      case "history":
        return this.#history(payload);
      case "refresh_token":
        return { ok: true, expires_at: this.now() + 3_600_000 };
      default:
        return { ok: true };
    }
  }

  #subscribe(socket: MockSocket, payload: any): Body {
    const replies: Body = {};
    for (const name of payload.topics as string[]) {
      if (isPattern(name)) {
        replies[name] = this.#subscribePattern(socket, name, payload);
      } else {
        socket.patterns.forEach((each) => each.topics.delete(name));
        replies[name] = this.#subscribeTopic(socket, name, payload);
      }
    }
    return replies;
  }

  #subscribePattern(socket: MockSocket, name: string, payload: any): Body {
    const topics = socket.patterns.get(name)?.topics ?? new Set<string>();
    const matches = topicMatcher(name);
    socket.patterns.set(name, { matches, intervalMs: payload.interval_ms ?? 0, topics });
    const replies: Body = {};
    for (const [topic, { entries }] of this.#topics) {
      const isOwn = socket.subscriptions.has(topic) && !topics.has(topic);
      if (entries.length > 0 && matches(topic) && !isOwn) {
        topics.add(topic);
        replies[topic] = this.#subscribeTopic(socket, topic, payload);
      }
    }
    return { status: "CONNECTED", matched: topics.size, topics: replies };
  }

  #subscribeTopic(socket: MockSocket, topic: string, payload: any): Body {
    const { epoch, entries } = this.#topic(topic);
    const since: Position | SinceTime | undefined = payload.since?.[topic];
    const seq = entries.at(-1)?.seq ?? 0;
    socket.subscriptions.set(topic, payload.interval_ms ?? 0);
    const isMerged = !/^TRADES:[^@]*$|^[A-Z_]+$/.test(topic);
    const recovered = since !== undefined && reaches(entries, epoch, since);
    const missed = recovered ? entries.filter((each) => isAfter(each, since)) : [];
    const newest = payload.last > 0 && !recovered ? entries.slice(-payload.last) : [];
    return {
      status: "CONNECTED",
      state: "LIVE",
      known: entries.length > 0,
      epoch,
      seq,
      interval_ms: payload.interval_ms ?? 0,
      recovered,
      snapshot: isMerged && !(recovered && missed.length === 0) ? this.#snapshot(topic) : null,
      missed: isMerged ? [] : [...missed, ...newest],
    };
  }

  #unsubscribe(socket: MockSocket, name: string): void {
    socket.subscriptions.delete(name);
    socket.patterns.forEach((each) => each.topics.delete(name));
    const ended = socket.patterns.get(name);
    socket.patterns.delete(name);
    for (const topic of ended?.topics ?? []) {
      const other = [...socket.patterns.values()].find((each) => each.matches(topic));
      if (other === undefined) {
        socket.subscriptions.delete(topic);
      } else {
        other.topics.add(topic);
      }
    }
  }

  /** A topic is new: the patterns that match bring it, with a snapshot. */
  #bringToPatterns(topic: string, event: string, message: AnyMessage): void {
    for (const socket of this.#sockets) {
      const pattern = [...socket.patterns.values()].find((each) => each.matches(topic));
      if (socket.connected && pattern !== undefined && !socket.subscriptions.has(topic)) {
        pattern.topics.add(topic);
        socket.subscriptions.set(topic, pattern.intervalMs);
        socket.receive(event, { ...message, type: "snapshot" });
      }
    }
  }

  #listed({ match = "*", symbols, after = "" }: ListInstruments): Instrument[] {
    const matches = matcher(match);
    return [...this.#instruments.values()].filter(
      ({ symbol }) =>
        matches(symbol) && (symbols?.includes(symbol) ?? true) && symbol > after,
    );
  }

  #snapshot(topic: string): AnyMessage | null {
    const { entries, book } = this.#topic(topic);
    const newest = entries.at(-1);
    if (newest === undefined) {
      return null;
    }
    if (book === null) {
      return { ...newest, type: "snapshot" } as AnyMessage;
    }
    const levels = (side: readonly Level[]) => side.map(([price, qty]) => [price, qty]);
    const data = { bids: levels(book.bids), asks: levels(book.asks), checksum: book.checksum() };
    return { ...newest, type: "snapshot", data } as unknown as AnyMessage;
  }

  #join(socket: MockSocket, payload: any): Body {
    const { epoch, messages, participants } = this.#session(payload.session_id);
    socket.sessions.add(payload.session_id);
    const own = { user_id: this.userId, connections: 1, joined_at: this.now() };
    participants.set(this.userId, participants.get(this.userId) ?? own);
    const since: Position | undefined = payload.since;
    const recovered = since !== undefined && since.epoch === epoch;
    return {
      ok: true,
      session_id: payload.session_id,
      participant_count: participants.size,
      participants: [...participants.values()],
      epoch,
      seq: messages.length,
      recovered,
      messages: recovered ? messages.slice(since.seq) : [],
      metadata: {},
    };
  }

  #send(payload: any): Body {
    const { messages } = this.#session(payload.session_id);
    const known = messages.find((each) => each["id"] === payload.id);
    const sent = known ?? this.say(payload.session_id, this.userId, payload.data, payload.id);
    return { ok: true, id: sent["id"], epoch: sent["epoch"], seq: sent["seq"], ts: sent["ts"] };
  }

  #history(payload: any): Body {
    const { messages } = this.#session(payload.session_id);
    const end = payload.before_seq === undefined ? messages.length : payload.before_seq - 1;
    const start = Math.max(0, end - (payload.limit ?? 100));
    return { ok: true, messages: messages.slice(start, end) };
  }

  #topic(name: string): LoggedTopic {
    let log = this.#topics.get(name);
    if (log === undefined) {
      log = { epoch: `e${this.#epoch}`, entries: [], book: null };
      this.#topics.set(name, log);
    }
    return log;
  }

  #session(id: string): LoggedSession {
    let log = this.#sessions.get(id);
    if (log === undefined) {
      log = { epoch: `e${this.#epoch}`, messages: [], participants: new Map() };
      this.#sessions.set(id, log);
    }
    return log;
  }

  #change(sessionId: string, userId: string): Body {
    const participant_count = this.#session(sessionId).participants.size;
    return { session_id: sessionId, user_id: userId, participant_count, ts: this.now() };
  }

  #emitTo(topic: string, event: string, message: unknown): void {
    for (const socket of this.#sockets) {
      if (socket.connected && socket.subscriptions.has(topic)) {
        socket.receive(event, message);
      }
    }
  }

  #emitToMembers(sessionId: string, event: string, body: unknown): void {
    for (const socket of this.#sockets) {
      if (socket.connected && socket.sessions.has(sessionId)) {
        socket.receive(event, body);
      }
    }
  }
}

class MockManager implements ManagerLike {
  constructor(
    private readonly server: MockServer,
    private readonly sockets: Set<MockSocket>,
  ) {}

  socket(name: NamespaceName, options: { auth: (send: (payload: object) => void) => void }) {
    const socket = new MockSocket(this.server, name, options.auth);
    this.sockets.add(socket);
    return socket;
  }

  reconnectionDelay(): void {}

  on(): void {}
}

class MockSocket implements SocketLike {
  connected = false;
  active = false;
  readonly subscriptions = new Map<string, number>();
  readonly patterns = new Map<string, MockPattern>();
  readonly sessions = new Set<string>();
  readonly #handlers = new Map<string, Handler[]>();
  #unanswered = new Set<Handler>();

  constructor(
    private readonly server: MockServer,
    readonly name: NamespaceName,
    private readonly auth: (send: (payload: object) => void) => void,
  ) {}

  on(event: string, handler: Handler): void {
    this.#handlers.set(event, [...(this.#handlers.get(event) ?? []), handler]);
  }

  connect(): void {
    if (!this.active) {
      this.active = true;
      this.comeBack();
    }
  }

  disconnect(): void {
    this.active = false;
    if (this.connected) {
      this.#drop("io client disconnect");
    }
  }

  emit(event: string, ...values: unknown[]): void {
    this.timeout().emit(event, ...values, () => {});
  }

  timeout() {
    return {
      emit: (event: string, ...values: unknown[]) => {
        const answered = values.pop() as Handler;
        this.#unanswered.add(answered);
        queueMicrotask(() => this.#answer(event, values[0], answered));
      },
    };
  }

  receive(event: string, ...values: unknown[]): void {
    if (this.server.takesDrop()) {
      return;
    }
    // As over a network: never within the call that caused it, and no object is shared.
    const copies = values.map((each) => (typeof each === "function" ? each : clone(each)));
    queueMicrotask(() => this.#call(event, ...copies));
  }

  comeBack(): void {
    if (!this.active || this.connected) {
      return;
    }
    if (!this.server.isUp) {
      queueMicrotask(() => this.#call("connect_error", new Error("websocket error")));
      return;
    }
    this.auth((payload) => this.#join(payload as { token?: string }));
  }

  /** Lose the connection; it comes back by itself if `active`. */
  lose(active: boolean): void {
    if (this.connected) {
      this.active = active;
      this.connected = false;
      queueMicrotask(() => {
        this.#drop(active ? "transport close" : "io server disconnect");
        if (this.server.isUp) {
          this.comeBack();
        }
      });
    }
  }

  #join({ token }: { token?: string }): void {
    this.server.tokens.push(token);
    const refusal = this.server.refusals[this.name];
    if (refusal !== undefined) {
      this.active = false;
      const error = Object.assign(new Error(refusal.message), { data: refusal });
      queueMicrotask(() => this.#call("connect_error", error));
      return;
    }
    this.connected = true;
    this.server.connected(this.name);
    this.receive("connect");
    this.receive("welcome", {
      connection_id: newId(),
      user_id: this.server.userId,
      org: "default",
      server_time: this.server.now(),
      ping_interval_ms: 25_000,
      resume_window_ms: 120_000,
    });
  }

  #drop(reason: string): void {
    this.connected = false;
    this.subscriptions.clear();
    this.patterns.clear();
    this.sessions.clear();
    const unanswered = this.#unanswered;
    this.#unanswered = new Set();
    this.#call("disconnect", reason);
    unanswered.forEach((each) => each(new Error("socket has been disconnected")));
  }

  #answer(event: string, payload: unknown, answered: Handler): void {
    if (this.#unanswered.delete(answered)) {
      const reply = this.server.handle(this, event, clone(payload));
      if (this.connected) {
        answered(null, clone(reply));
      } else {
        this.#unanswered.add(answered);
      }
    }
  }

  #call(event: string, ...values: unknown[]): void {
    this.#handlers.get(event)?.forEach((handler) => handler(...values));
  }
}

function reaches(entries: AnyMessage[], epoch: string, since: Position | SinceTime): boolean {
  const first = entries[0]?.seq ?? 1;
  return "ts" in since || (since.epoch === epoch && since.seq + 1 >= first);
}

function isAfter({ seq, ts }: AnyMessage, since: Position | SinceTime): boolean {
  return "ts" in since ? ts >= since.ts : seq > since.seq;
}

function clone<T>(value: T): T {
  return value === undefined ? value : (JSON.parse(JSON.stringify(value)) as T);
}
