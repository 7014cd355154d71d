/** One session: its messages, its participants and who types, kept over reconnects. */
import type {
  JoinReply,
  Participant,
  Position,
  SessionClosed,
  SessionMessage,
  SessionSignal,
  UserJoined,
  UserLeft,
} from "../contract.js";
import type { Accepted, Namespace } from "../connection/namespace.js";
import { backoff, passes } from "../connection/retry.js";
import type { Frames } from "../connection/frames.js";
import type { Timers } from "../connection/timers.js";
import { FloorcastError } from "../errors.js";
import { newId } from "../ids.js";
import { Store } from "../store.js";
import { Outbox, type PendingMessage, type Sent } from "./outbox.js";

/** How often a typist says so, and how long that holds. */
const TYPING_EVERY_MS = 2_000;
const TYPING_HOLDS_MS = 4_000;

export type SessionStatus =
  | "joining"
  | "joined"
  /** No connection: it joins again by itself, and gets what it missed. */
  | "offline"
  /** Nobody listens to it, so it is not joined. */
  | "left"
  /** Ended: `reason` is `closed`, `kicked`, `forbidden` or `full`. */
  | "closed"
  /** The server refused: see `error`. */
  | "error";

export interface SessionView {
  readonly sessionId: string;
  readonly status: SessionStatus;
  readonly reason: string | null;
  readonly error: FloorcastError | null;
  /** Oldest first. */
  readonly messages: readonly SessionMessage[];
  /** Whether messages before the first one may exist: `loadOlder` fetches them. */
  readonly hasOlder: boolean;
  /** Yours that the server has not acknowledged so far. */
  readonly pending: readonly PendingMessage[];
  readonly participants: readonly Participant[];
  /** The users who type now. */
  readonly typing: readonly string[];
  /** Messages between these are lost: the server did not have them any more. */
  readonly gaps: number;
}

export interface SessionOptions {
  /** Messages to begin with. */
  history?: number;
  /** Messages to keep. */
  limit?: number;
}

export class Session extends Store<SessionView> {
  readonly #outbox: Outbox;
  #status: SessionStatus = "left";
  #reason: string | null = null;
  #error: FloorcastError | null = null;
  #messages: readonly SessionMessage[] = [];
  #hasOlder = true;
  #participants: readonly Participant[] = [];
  readonly #typing = new Map<string, () => void>();
  readonly #signals = new Set<(signal: SessionSignal) => void>();
  #position: Position | null = null;
  #gaps = 0;
  #attempt = 0;
  #isBusy = false;
  /** Whether the server has this connection as a member. */
  #isMember = false;
  #typedAt = -Infinity;

  constructor(
    readonly id: string,
    private readonly options: Required<SessionOptions>,
    private readonly namespace: Namespace<"/session">,
    frames: Frames,
    private readonly timers: Timers,
  ) {
    super(frames);
    this.#outbox = new Outbox(id, namespace, timers, () => this.changed());
  }

  /** Join, also without listeners, until the returned function is called. */
  open(): () => void {
    return this.subscribe(() => {});
  }

  /**
   * Send a message; resolves once the server has it. Retried under one id over reconnects, for
   * half a minute; rejects then, or if the server refuses.
   */
  send(data: Record<string, unknown>, id = newId()): Promise<Sent> {
    if (this.isWatched && this.#isEnded) {
      const ended = new FloorcastError("session.closed", `the session has ended: ${this.#reason}`);
      return Promise.reject(this.#error ?? ended);
    }
    // Joined until the server has it, also if nobody listens.
    const release = this.open();
    const sent = this.#outbox.add(data, id, this.#status === "joined");
    sent.then(release, release);
    return sent;
  }

  /** Send something transient to the others who are here now, such as a cursor. */
  signal(data: Record<string, unknown>): void {
    if (this.#status === "joined") {
      this.namespace.send("signal", { session_id: this.id, data }, () => {});
    }
  }

  /** Say that the user types; call it at each key. */
  typing(): void {
    const now = performance.now();
    if (now - this.#typedAt >= TYPING_EVERY_MS) {
      this.#typedAt = now;
      this.signal({ typing: true });
    }
  }

  /** Call with each signal of others but typing; returns a function that ends it. */
  onSignal(call: (signal: SessionSignal) => void): () => void {
    this.#signals.add(call);
    return () => this.#signals.delete(call);
  }

  /** Fetch messages before the first one; returns how many came. */
  async loadOlder(count = 100): Promise<number> {
    const first = this.#messages[0];
    const before = first === undefined ? {} : { before_seq: first.seq };
    const { messages } = await this.namespace.request("history", {
      session_id: this.id,
      limit: count,
      ...before,
    });
    const older = messages.filter((each) => first === undefined || each.seq < first.seq);
    this.#messages = [...older, ...this.#messages];
    this.#hasOlder = messages.length === count;
    this.changed();
    return older.length;
  }

  protected build(): SessionView {
    return {
      sessionId: this.id,
      status: this.#status,
      reason: this.#reason,
      error: this.#error,
      messages: this.#messages,
      hasOlder: this.#hasOlder,
      pending: this.#outbox.pending,
      participants: this.#participants,
      typing: [...this.#typing.keys()],
      gaps: this.#gaps,
    };
  }

  protected override start(): void {
    this.namespace.start();
    this.#status = this.namespace.isOnline ? "joining" : "offline";
    this.#reason = null;
    this.#error = null;
    this.#settleSoon();
  }

  protected override stop(): void {
    this.#settleSoon();
  }

  // --- what the namespace reports

  onReady(): void {
    this.#attempt = 0;
    this.#settle();
  }

  onDown(): void {
    this.#isBusy = false;
    this.#isMember = false;
    this.#outbox.reset();
    if (this.isWatched && !this.#isEnded) {
      this.#become("offline");
    }
  }

  onMessage(message: SessionMessage): void {
    // While a join is under way its reply has all of this.
    if (this.#position === null || this.#status !== "joined") {
      return;
    }
    const { epoch, seq } = this.#position;
    if (message.epoch !== epoch || message.seq > seq + 1) {
      this.#isMember = false;
      this.#settle();
    } else if (message.seq > seq) {
      this.#append([message]);
      this.#stopTyping(message.user_id);
    }
  }

  onJoined({ user_id, ts }: UserJoined): void {
    if (!this.#participants.some((each) => each.user_id === user_id)) {
      const participant = { user_id, connections: 1, joined_at: ts };
      this.#participants = [...this.#participants, participant];
      this.changed();
    }
  }

  onLeft({ user_id }: UserLeft): void {
    this.#participants = this.#participants.filter((each) => each.user_id !== user_id);
    this.#stopTyping(user_id);
    this.changed();
  }

  onSignalReceived(signal: SessionSignal): void {
    if (signal.data["typing"] === true) {
      this.#typing.get(signal.user_id)?.();
      const end = () => this.#stopTyping(signal.user_id);
      this.#typing.set(signal.user_id, this.timers.after(TYPING_HOLDS_MS, end));
      this.changed();
    } else {
      this.#signals.forEach((call) => call(signal));
    }
  }

  onClosed({ reason }: SessionClosed): void {
    this.#isMember = false;
    this.#reason = reason;
    this.#participants = [];
    this.#outbox.fail(new FloorcastError("session.closed", `the session has ended: ${reason}`));
    this.#become("closed");
  }

  // --- joining and leaving

  get #isEnded(): boolean {
    return this.#status === "closed" || this.#status === "error";
  }

  /** After this turn: StrictMode mounts everything twice. */
  #settleSoon(): void {
    this.timers.after(0, () => this.#settle());
  }

  #settle(): void {
    if (this.#isBusy || !this.namespace.isOnline) {
      return;
    }
    if (!this.isWatched) {
      this.#leave();
    } else if (!this.#isMember && !this.#isEnded) {
      this.#join();
    }
  }

  #leave(): void {
    if (this.#isMember) {
      this.#isMember = false;
      this.#isBusy = true;
      this.namespace.send("leave", { session_id: this.id }, () => {
        this.#isBusy = false;
        this.#settle();
      });
    }
    if (!this.#isEnded) {
      this.#become("left");
    }
  }

  #join(): void {
    const since = this.#position;
    this.#isBusy = true;
    this.#become("joining");
    const request = { session_id: this.id, ...(since === null ? {} : { since }) };
    this.namespace.send("join", request, (reply) => {
      this.#isBusy = false;
      if (reply?.ok === true) {
        this.#onGranted(reply, since);
      } else if (this.namespace.isOnline) {
        this.#onRefused(reply);
      }
    });
  }

  #onGranted(reply: Accepted<JoinReply>, since: Position | null): void {
    this.#attempt = 0;
    this.#isMember = true;
    this.#participants = reply.participants;
    if (since !== null && !reply.recovered) {
      this.#gaps += 1;
      this.#messages = since.epoch === reply.epoch ? this.#messages : [];
    }
    this.#position = { epoch: reply.epoch, seq: reply.seq };
    this.#append(reply.messages);
    this.#become("joined");
    if ((since === null || !reply.recovered) && this.options.history > 0) {
      this.#fetchHistory();
    }
    this.#outbox.flush();
    this.#settle();
  }

  #onRefused(reply: JoinReply | null): void {
    const error = reply?.ok === false ? FloorcastError.of(reply.error) : null;
    if (error === null || passes(error)) {
      this.timers.after(error?.retryAfterMs ?? backoff(this.#attempt), () => this.#settle());
      this.#attempt += 1;
    } else {
      this.#error = error;
      this.#outbox.fail(error);
      this.#become("error");
    }
  }

  #fetchHistory(): void {
    const limit = Math.min(1_000, this.options.history);
    this.namespace.send("history", { session_id: this.id, limit }, (reply) => {
      if (reply?.ok === true) {
        const known = new Set(this.#messages.map((each) => `${each.epoch} ${each.seq}`));
        const others = reply.messages.filter((each) => !known.has(`${each.epoch} ${each.seq}`));
        this.#messages = [...others, ...this.#messages].sort((a, b) => a.seq - b.seq);
        this.#hasOlder = reply.messages.length === limit;
        this.changed();
      }
    });
  }

  #append(messages: readonly SessionMessage[]): void {
    const last = messages.at(-1);
    if (last !== undefined) {
      this.#position = { epoch: last.epoch, seq: Math.max(last.seq, this.#position?.seq ?? 0) };
      this.#messages = [...this.#messages, ...messages].slice(-this.options.limit);
      this.changed();
    }
  }

  #stopTyping(userId: string): void {
    this.#typing.get(userId)?.();
    if (this.#typing.delete(userId)) {
      this.changed();
    }
  }

  #become(status: SessionStatus): void {
    this.#status = status;
    this.changed();
  }
}
