/** The one connection of a client: both namespaces, the token, the clock and what to show of it. */
import type { Welcome } from "../contract.js";
import { FloorcastError } from "../errors.js";
import { Store } from "../store.js";
import { ServerClock } from "./clock.js";
import type { Frames } from "./frames.js";
import { Namespace, type NamespaceState } from "./namespace.js";
import { backoff } from "./retry.js";
import { type OpenManager, parseAddress } from "./socket.js";
import type { Timers } from "./timers.js";
import { type Token, Tokens } from "./tokens.js";

const MIN_RECONNECT_MS = 500;
const MAX_RECONNECT_MS = 8_000;

export interface ConnectionInfo {
  /** The worse of the namespaces in use; `refused` only if no other is up. */
  readonly state: NamespaceState;
  readonly market: NamespaceState;
  readonly session: NamespaceState;
  /** Why it is not online, null while it is. */
  readonly error: FloorcastError | null;
  /** Since when it is in this state, in ms by the local clock. */
  readonly since: number;
  /** Attempts to come back since the loss. */
  readonly attempt: number;
  /** The server shuts down and will cut the connection: a reconnect follows. */
  readonly isDraining: boolean;
  readonly userId: string | null;
  readonly org: string | null;
}

export class Connection extends Store<ConnectionInfo> {
  readonly clock = new ServerClock();
  readonly market: Namespace<"/market">;
  readonly session: Namespace<"/session">;
  readonly #tokens: Tokens;
  #isRefreshing = false;
  #attempt = 0;
  #isDraining = false;
  #welcome: Welcome | null = null;
  #since = Date.now();
  #state: NamespaceState = "idle";

  constructor(
    url: string,
    token: Token | undefined,
    transports: readonly string[],
    open: OpenManager,
    frames: Frames,
    private readonly timers: Timers,
  ) {
    super(frames);
    const { origin, path } = parseAddress(url);
    const manager = open(origin, {
      path,
      transports,
      reconnectionDelay: MIN_RECONNECT_MS,
      reconnectionDelayMax: MAX_RECONNECT_MS,
    });
    this.#tokens = new Tokens(token);
    const hooks = {
      changed: () => this.#onChange(),
      welcomed: (welcome: Welcome) => {
        this.clock.set(welcome.server_time);
        this.#welcome = welcome;
        this.#attempt = 0;
        this.#isDraining = false;
        // All who lose this server at once spread over the time that it needs for them.
        const spread = welcome.reconnect_spread_ms ?? 0;
        manager.reconnectionDelay(Math.max(MIN_RECONNECT_MS, spread / 2));
      },
      tokenExpiring: () => void this.#refreshToken(),
      goodbye: ({ after_ms }: { after_ms: number }) => {
        if (after_ms > MIN_RECONNECT_MS) {
          manager.reconnectionDelay(after_ms);
        }
      },
    };
    this.market = new Namespace("/market", manager, this.#tokens, timers, hooks);
    this.session = new Namespace("/session", manager, this.#tokens, timers, hooks);
    for (const namespace of [this.market, this.session]) {
      namespace.on("reconnect_hint", () => {
        this.#isDraining = true;
        this.changed();
      });
    }
    manager.on("reconnect_attempt", (attempt) => {
      this.#attempt = attempt;
      this.changed();
    });
  }

  /** Connect now what is in use and not connected, also after a refusal. */
  retry(): void {
    for (const namespace of [this.market, this.session]) {
      if (namespace.state !== "idle") {
        namespace.retry();
      }
    }
  }

  close(): void {
    this.market.close();
    this.session.close();
  }

  protected build(): ConnectionInfo {
    const { market, session } = this;
    return {
      state: this.#state,
      market: market.state,
      session: session.state,
      error: this.#state === "online" ? null : (market.error ?? session.error),
      since: this.#since,
      attempt: this.#attempt,
      isDraining: this.#isDraining,
      userId: this.#welcome?.user_id ?? null,
      org: this.#welcome?.org ?? null,
    };
  }

  #onChange(): void {
    // The hooks are called while the namespaces are being made, too.
    const states = [this.market, this.session].map((each) => each?.state ?? "idle");
    const state = worst(states);
    if (state !== this.#state) {
      this.#state = state;
      this.#since = Date.now();
    }
    this.changed();
  }

  /** Both namespaces announce the expiry, and one refresh renews both. */
  async #refreshToken(attempt = 0): Promise<void> {
    if (attempt === 0 && (this.#isRefreshing || !this.#tokens.isRenewable)) {
      return;
    }
    this.#isRefreshing = true;
    const { market, session } = this;
    try {
      const token = (await this.#tokens.fetch()) ?? "";
      await (market.isOnline
        ? market.request("refresh_token", { token })
        : session.request("refresh_token", { token }));
      this.#isRefreshing = false;
    } catch {
      // Until the old one ends, and with it the connection, which comes back with a new one.
      if (market.isOnline || session.isOnline) {
        this.timers.after(backoff(attempt), () => void this.#refreshToken(attempt + 1));
      } else {
        this.#isRefreshing = false;
      }
    }
  }
}

const ORDER: readonly NamespaceState[] = ["closed", "offline", "connecting", "online", "refused"];

function worst(states: readonly NamespaceState[]): NamespaceState {
  return ORDER.find((state) => states.includes(state)) ?? "idle";
}
