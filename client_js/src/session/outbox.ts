/** Messages on their way to a session: sent again under their id until the server has them. */
import type { Accepted, Namespace, ReplyTo } from "../connection/namespace.js";
import { backoff, passes } from "../connection/retry.js";
import type { Timers } from "../connection/timers.js";
import type { SendReply } from "../contract.js";
import { FloorcastError } from "../errors.js";

export const MAX_PENDING = 1_000;
const SEND_MS = 30_000;

export type Sent = Accepted<ReplyTo<"/session", "send">>;

/** A message that the server has not acknowledged so far. */
export interface PendingMessage {
  readonly id: string;
  readonly data: Record<string, unknown>;
}

interface Entry extends PendingMessage {
  resolve(sent: Sent): void;
  reject(error: FloorcastError): void;
  isInFlight: boolean;
  attempt: number;
}

export class Outbox {
  readonly #entries = new Map<string, Entry>();

  constructor(
    private readonly sessionId: string,
    private readonly namespace: Namespace<"/session">,
    private readonly timers: Timers,
    private readonly changed: () => void,
  ) {}

  get pending(): readonly PendingMessage[] {
    return [...this.#entries.values()].map(({ id, data }) => ({ id, data }));
  }

  add(data: Record<string, unknown>, id: string, isJoined: boolean): Promise<Sent> {
    return new Promise((resolve, reject) => {
      if (this.#entries.size >= MAX_PENDING) {
        reject(new FloorcastError("client.overflow", "too many messages wait to be sent"));
        return;
      }
      const error = new FloorcastError("client.timeout", "the server did not acknowledge in time");
      const cancel = this.timers.after(SEND_MS, () => this.#end(id, () => reject(error)));
      const settle = <T>(call: (value: T) => void) => (value: T) => {
        cancel();
        call(value);
      };
      const entry = { id, data, isInFlight: false, attempt: 0 };
      this.#entries.set(id, { ...entry, resolve: settle(resolve), reject: settle(reject) });
      this.changed();
      if (isJoined) {
        this.flush();
      }
    });
  }

  /** Send what waits, in order. */
  flush(): void {
    for (const entry of this.#entries.values()) {
      if (!entry.isInFlight) {
        this.#send(entry);
      }
    }
  }

  /** The connection is lost, and with it the replies: send again after the next join. */
  reset(): void {
    this.#entries.forEach((entry) => (entry.isInFlight = false));
  }

  fail(error: FloorcastError): void {
    for (const { id, reject } of [...this.#entries.values()]) {
      this.#end(id, () => reject(error));
    }
  }

  #send(entry: Entry): void {
    const { id, data } = entry;
    entry.isInFlight = true;
    this.namespace.send("send", { session_id: this.sessionId, data, id }, (reply) => {
      // A timeout or a reset may have ended it meanwhile.
      if (this.#entries.get(id) === entry && entry.isInFlight) {
        this.#onReply(entry, reply);
      }
    });
  }

  #onReply(entry: Entry, reply: SendReply | null): void {
    if (reply?.ok === true) {
      this.#end(entry.id, () => entry.resolve(reply));
      return;
    }
    const error = reply?.error;
    if (error !== undefined && !passes(error)) {
      this.#end(entry.id, () => entry.reject(FloorcastError.of(error)));
      return;
    }
    this.timers.after(error?.retry_after_ms ?? backoff(entry.attempt), () => {
      entry.isInFlight = false;
      if (this.namespace.isOnline && this.#entries.get(entry.id) === entry) {
        this.#send(entry);
      }
    });
    entry.attempt += 1;
  }

  #end(id: string, settle: () => void): void {
    if (this.#entries.delete(id)) {
      settle();
      this.changed();
    }
  }
}
