/** One namespace of the connection: joins it, comes back to it, and asks the server. */
import type { ClientToServerEvents, ErrorBody, Goodbye, Reply, Welcome } from "../contract.js";
import { FloorcastError } from "../errors.js";
import { backoff, refusalDelay } from "./retry.js";
import type { ManagerLike, SocketLike } from "./socket.js";
import type { Timers } from "./timers.js";
import type { Tokens } from "./tokens.js";

export type NamespaceState =
  /** Not used so far. */
  | "idle"
  | "connecting"
  | "online"
  /** Lost; it comes back by itself. */
  | "offline"
  /** The server does not want it back, or refused it for a reason that does not pass. */
  | "refused"
  | "closed";

export type NamespaceName = "/market" | "/session";
type Requests<Name extends NamespaceName> = ClientToServerEvents[Name];
export type Payload<
  Name extends NamespaceName,
  Event extends keyof Requests<Name>,
> = Requests<Name>[Event] extends (payload: infer P, acknowledge: any) => void ? P : never;
export type ReplyTo<
  Name extends NamespaceName,
  Event extends keyof Requests<Name>,
> = Requests<Name>[Event] extends (payload: any, acknowledge: (reply: infer R) => void) => void
  ? R
  : never;
export type Accepted<R> = Extract<R, { ok: true }>;

type Handler = (...values: any[]) => void;

export const REPLY_MS = 10_000;

export interface NamespaceHooks {
  changed(): void;
  welcomed(welcome: Welcome): void;
  tokenExpiring(): void;
  goodbye(goodbye: Goodbye): void;
}

export class Namespace<Name extends NamespaceName> {
  state: NamespaceState = "idle";
  /** Why it is not online. */
  error: FloorcastError | null = null;
  readonly #socket: SocketLike;
  readonly #handlers = new Map<string, Set<Handler>>();
  readonly #ready = new Set<() => void>();
  readonly #down = new Set<() => void>();
  readonly #watchers = new Set<() => void>();
  #attempt = 0;
  #goodbye: Goodbye | null = null;
  #cancelRetry: (() => void) | null = null;

  constructor(
    readonly name: Name,
    manager: ManagerLike,
    private readonly tokens: Tokens,
    private readonly timers: Timers,
    private readonly hooks: NamespaceHooks,
  ) {
    // Positions resume more than Socket.IO's recovery does: also at another server, and for ever.
    this.#socket = manager.socket(name, { auth: (send) => void this.#authenticate(send) });
    this.#socket.on("welcome", (welcome: Welcome) => this.#onWelcome(welcome));
    this.#socket.on("goodbye", (goodbye: Goodbye) => this.#onGoodbye(goodbye));
    this.#socket.on("token_expiring", () => hooks.tokenExpiring());
    this.#socket.on("disconnect", () => this.#onDisconnect());
    this.#socket.on("connect_error", (error: Error & { data?: ErrorBody }) =>
      this.#onConnectError(error),
    );
  }

  get isOnline(): boolean {
    return this.state === "online";
  }

  /** Connect, if it was not used so far. */
  start(): void {
    if (this.state === "idle") {
      this.retry();
    }
  }

  /** Connect now, also after a refusal; a no-op while it is connected. */
  retry(): void {
    if (this.state === "online" || this.state === "closed") {
      return;
    }
    this.#cancelRetry?.();
    this.#become("connecting", this.error);
    this.#socket.connect();
  }

  close(): void {
    this.#become("closed", null);
    this.#cancelRetry?.();
    this.#socket.disconnect();
    this.#down.forEach((call) => call());
  }

  /** Handle an event, until the returned function is called. */
  on(event: string, handler: Handler): () => void {
    let handlers = this.#handlers.get(event);
    if (handlers === undefined) {
      const all = new Set<Handler>();
      handlers = all;
      this.#handlers.set(event, all);
      this.#socket.on(event, (...values) => all.forEach((each) => each(...values)));
    }
    return added(handlers, handler);
  }

  /** Call whenever the namespace comes online, until the returned function is called. */
  onReady(call: () => void): () => void {
    return added(this.#ready, call);
  }

  /** Call whenever the namespace is lost, until the returned function is called. */
  onDown(call: () => void): () => void {
    return added(this.#down, call);
  }

  /**
   * Send an event. `answered` runs before any event that follows the reply; it gets null if there
   * is no reply in time.
   */
  send<Event extends keyof Requests<Name> & string>(
    event: Event,
    payload: Payload<Name, Event>,
    answered: (reply: ReplyTo<Name, Event> | null) => void,
  ): void {
    this.#socket
      .timeout(REPLY_MS)
      .emit(event, payload, (error: Error | null, reply: ReplyTo<Name, Event>) =>
        answered(error ? null : reply),
      );
  }

  /** Wait until it is online; rejects if the server refuses it, or after some seconds. */
  whenOnline(): Promise<void> {
    this.start();
    if (this.isOnline) {
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const end = (settle: () => void) => {
        cancel();
        this.#watchers.delete(check);
        settle();
      };
      const check = () => {
        if (this.isOnline) {
          end(resolve);
        } else if (this.state === "refused" || this.state === "closed") {
          end(() => reject(this.error ?? closedError()));
        }
      };
      const cancel = this.timers.after(REPLY_MS, () => end(() => reject(this.error ?? offlineError())));
      this.#watchers.add(check);
      check();
    });
  }

  /** Send an event and wait for its reply; rejects if the server refuses it, or does not reply. */
  request<Event extends keyof Requests<Name> & string>(
    event: Event,
    payload: Payload<Name, Event>,
  ): Promise<Accepted<ReplyTo<Name, Event>>> {
    return new Promise((resolve, reject) => {
      if (!this.isOnline) {
        reject(this.error ?? offlineError());
        return;
      }
      this.send(event, payload, (reply) => {
        const answer = reply as Reply | null;
        if (answer === null) {
          reject(new FloorcastError("client.timeout", `no reply to ${event}`));
        } else if (answer.ok) {
          resolve(answer as Accepted<ReplyTo<Name, Event>>);
        } else {
          reject(FloorcastError.of(answer.error));
        }
      });
    });
  }

  async #authenticate(send: (payload: object) => void): Promise<void> {
    try {
      const token = await this.tokens.forConnect();
      send(token === undefined ? { recovery: false } : { recovery: false, token });
    } catch (error) {
      this.#socket.disconnect();
      this.#comeBack("offline", error as FloorcastError, backoff(this.#attempt));
    }
  }

  #onWelcome(welcome: Welcome): void {
    this.#attempt = 0;
    this.#goodbye = null;
    this.hooks.welcomed(welcome);
    this.#become("online", null);
    this.#ready.forEach((call) => call());
  }

  #onGoodbye(goodbye: Goodbye): void {
    this.#goodbye = goodbye;
    this.hooks.goodbye(goodbye);
  }

  #onDisconnect(): void {
    if (this.state === "closed") {
      return;
    }
    const wasOnline = this.isOnline;
    const goodbye = this.#goodbye;
    const error =
      goodbye === null
        ? new FloorcastError("client.offline", "the connection is lost")
        : FloorcastError.of(goodbye);
    if (goodbye?.code.startsWith("auth.")) {
      this.tokens.forget();
    }
    if (this.#socket.active) {
      this.#become("offline", error);
    } else if (goodbye !== null && !goodbye.reconnect) {
      this.#become("refused", error);
    } else {
      this.#comeBack("offline", error, goodbye?.after_ms || backoff(0));
    }
    if (wasOnline) {
      this.#down.forEach((call) => call());
    }
  }

  #onConnectError(error: Error & { data?: ErrorBody }): void {
    if (this.state === "closed") {
      return;
    }
    if (this.#socket.active || error.data === undefined) {
      const message = `the server cannot be reached: ${error.message}`;
      this.#become("offline", new FloorcastError("client.offline", message));
      return;
    }
    const refusal = FloorcastError.of({ ...error.data, message: error.message });
    const delay = refusalDelay(error.data, this.#attempt, this.tokens.isRenewable);
    if (refusal.code.startsWith("auth.")) {
      this.tokens.forget();
    }
    if (delay === null) {
      this.#become("refused", refusal);
    } else {
      this.#comeBack("offline", refusal, delay);
    }
  }

  #comeBack(state: NamespaceState, error: FloorcastError, delay: number): void {
    this.#attempt += 1;
    this.#become(state, error);
    this.#cancelRetry?.();
    this.#cancelRetry = this.timers.after(delay, () => this.retry());
  }

  #become(state: NamespaceState, error: FloorcastError | null): void {
    this.state = state;
    this.error = error;
    this.hooks.changed();
    this.#watchers.forEach((check) => check());
  }
}

function added<T>(calls: Set<T>, call: T): () => void {
  calls.add(call);
  return () => calls.delete(call);
}

function offlineError(): FloorcastError {
  return new FloorcastError("client.offline", "not connected");
}

function closedError(): FloorcastError {
  return new FloorcastError("client.closed", "the client is closed");
}
