/** The sessions of a client, and the notices for its user. */
import type {
  Notification,
  SessionClosed,
  SessionMessage,
  SessionSignal,
  UserJoined,
  UserLeft,
} from "../contract.js";
import type { Frames } from "../connection/frames.js";
import type { Namespace } from "../connection/namespace.js";
import type { Timers } from "../connection/timers.js";
import { Session, type SessionOptions } from "./session.js";

/** Of sessions that nobody listens to; the server takes 50 at once. */
const MAX_SESSIONS = 100;
const DEFAULTS: Required<SessionOptions> = { history: 100, limit: 1_000 };

export type NoticeHandler = (notice: Notification) => void | Promise<void>;

export class Sessions {
  readonly #sessions = new Map<string, Session>();
  readonly #noticeHandlers = new Set<NoticeHandler>();

  constructor(
    private readonly namespace: Namespace<"/session">,
    private readonly frames: Frames,
    private readonly timers: Timers,
  ) {
    const to = <Body extends { session_id: string }>(
      event: string,
      call: (session: Session, body: Body) => void,
    ) =>
      namespace.on(event, (body: Body) => {
        const session = this.#sessions.get(body.session_id);
        if (session !== undefined) {
          call(session, body);
        }
      });
    to<SessionMessage>("message", (session, message) => session.onMessage(message));
    to<UserJoined>("user_joined", (session, change) => session.onJoined(change));
    to<UserLeft>("user_left", (session, change) => session.onLeft(change));
    to<SessionSignal>("signal", (session, signal) => session.onSignalReceived(signal));
    to<SessionClosed>("session_closed", (session, closed) => session.onClosed(closed));
    namespace.on("notification", (notice: Notification, acknowledge?: unknown) =>
      void this.#onNotice(notice, acknowledge),
    );
    namespace.onReady(() => this.#sessions.forEach((each) => each.onReady()));
    namespace.onDown(() => this.#sessions.forEach((each) => each.onDown()));
  }

  /** A session; joined while somebody listens to it. */
  get(id: string, options: SessionOptions = {}): Session {
    let session = this.#sessions.get(id);
    if (session === undefined) {
      this.#evictUnused();
      const all = { ...DEFAULTS, ...options };
      session = new Session(id, all, this.namespace, this.frames, this.timers);
      this.#sessions.set(id, session);
    }
    return session;
  }

  /**
   * Handle the notices for this user, until the returned function is called. A critical one is
   * acknowledged once all handlers are done without an error; else it comes again.
   */
  onNotice(handler: NoticeHandler): () => void {
    this.#noticeHandlers.add(handler);
    this.namespace.start();
    return () => this.#noticeHandlers.delete(handler);
  }

  async #onNotice(notice: Notification, acknowledge: unknown): Promise<void> {
    if (this.#noticeHandlers.size === 0) {
      return;
    }
    const results = [...this.#noticeHandlers].map(async (handler) => handler(notice));
    const outcomes = await Promise.allSettled(results);
    const failed = outcomes.find((each) => each.status === "rejected");
    if (failed !== undefined) {
      console.error("a notice handler failed", failed.reason);
    } else if (typeof acknowledge === "function") {
      acknowledge();
    }
  }

  #evictUnused(): void {
    if (this.#sessions.size >= MAX_SESSIONS) {
      for (const [id, session] of this.#sessions) {
        if (!session.isWatched) {
          this.#sessions.delete(id);
        }
      }
    }
  }
}
