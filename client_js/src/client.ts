/** The client: one connection to a Floorcast server for everything on a page. */
import { Connection, type ConnectionInfo } from "./connection/connection.js";
import { Frames, Visibility } from "./connection/frames.js";
import { type OpenManager, openManager } from "./connection/socket.js";
import { type Timers, timers as realTimers } from "./connection/timers.js";
import type { Token } from "./connection/tokens.js";
import { Market } from "./market/market.js";
import type { Session, SessionOptions } from "./session/session.js";
import { type NoticeHandler, Sessions } from "./session/sessions.js";
import type { Readable } from "./store.js";

export interface ClientOptions {
  /** A token, or a function that returns a fresh one: called for each connect and before expiry. */
  token?: Token;
  /** Of Engine.IO, in order. */
  transports?: readonly ("websocket" | "polling")[];
  /**
   * Values of the market are unsubscribed once the page was hidden for so long, and fetched again
   * when it is visible. Infinity keeps them.
   */
  pauseHiddenMs?: number;
  /** Opens the connection: that of a mock server in tests. */
  open?: OpenManager;
  /** In place of the timers of the platform, for tests. */
  timers?: Timers;
}

export class Client {
  readonly market: Market;
  readonly #connection: Connection;
  readonly #sessions: Sessions;
  readonly #visibility: Visibility;

  /** Nothing is connected before it is used. `url` has the path that the server is mounted at. */
  constructor(url: string, options: ClientOptions = {}) {
    const {
      token,
      transports = ["websocket", "polling"],
      pauseHiddenMs = 5_000,
      open = openManager,
      timers = realTimers,
    } = options;
    const frames = new Frames(timers);
    const connection = new Connection(url, token, transports, open, frames, timers);
    this.#connection = connection;
    this.#visibility = new Visibility(timers, pauseHiddenMs);
    this.market = new Market(connection.market, this.#visibility, frames, connection.clock, timers);
    this.#sessions = new Sessions(connection.session, frames, timers);
  }

  /** The state of the connection, for a banner. */
  get connection(): Readable<ConnectionInfo> {
    return this.#connection;
  }

  /** A session by its id; joined while somebody listens to it. */
  session(id: string, options?: SessionOptions): Session {
    return this.#sessions.get(id, options);
  }

  /** Handle the notices for this user; returns a function that ends it. */
  onNotice(handler: NoticeHandler): () => void {
    return this.#sessions.onNotice(handler);
  }

  /** The server's time in ms. */
  now(): number {
    return this.#connection.clock.now();
  }

  /** How old something is that the server stamped with `ts`, in ms by the server's clock. */
  age(ts: number): number {
    return this.#connection.clock.age(ts);
  }

  /** Connect to `/market` before anything is used, for a banner that is right from the start. */
  connect(): void {
    this.#connection.market.start();
  }

  /** Connect again at once, also after the server refused. */
  reconnect(): void {
    this.#connection.retry();
  }

  /** Disconnect for good. */
  close(): void {
    this.#visibility.close();
    this.#connection.close();
  }
}
