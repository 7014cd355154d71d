/** The will of a client: set on each new connection, since a connection takes back the one before. */
import type { Namespace } from "../connection/namespace.js";
import { backoff, passes } from "../connection/retry.js";
import type { Timers } from "../connection/timers.js";
import type { Publication, WillRequest } from "../contract.js";
import { FloorcastError } from "../errors.js";

export interface WillOptions {
  /** How long the user must be gone, in ms. */
  afterMs?: number;
  /** The server refused the will on a later connection. */
  refused?: (error: FloorcastError) => void;
}

export class Will {
  #request: WillRequest | null = null;
  #refused: WillOptions["refused"];
  #attempt = 0;

  constructor(
    private readonly namespace: Namespace<"/market">,
    private readonly timers: Timers,
  ) {
    namespace.onReady(() => this.#renew());
  }

  /** Set, replace or take back the will; resolves once the server has it. */
  async set(messages: readonly Publication[] | null, options: WillOptions): Promise<void> {
    const { afterMs = 0, refused } = options;
    const taken: WillRequest = { messages: null };
    const request = messages === null ? taken : { after_ms: afterMs, messages: [...messages] };
    await this.namespace.whenOnline();
    await this.namespace.request("will", request);
    this.#request = messages === null ? null : request;
    this.#refused = refused;
  }

  #renew(): void {
    this.#attempt = 0;
    this.#send();
  }

  #send(): void {
    const request = this.#request;
    if (request === null || !this.namespace.isOnline) {
      return;
    }
    this.namespace.send("will", request, (reply) => {
      if (reply?.ok === true || request !== this.#request) {
        return;
      }
      const error = reply === null ? null : reply.error;
      if (error === null || passes(error)) {
        this.timers.after(error?.retry_after_ms ?? backoff(this.#attempt), () => this.#send());
        this.#attempt += 1;
      } else {
        this.#request = null;
        this.#refused?.(FloorcastError.of(error));
      }
    });
  }
}
