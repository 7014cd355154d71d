/** One token for both namespaces of a connection. */
import { FloorcastError } from "../errors.js";

/** A token, or a function that returns a fresh one. */
export type Token = string | (() => string | Promise<string>);

/** Both namespaces connect at about the same time, with one token. */
const SHARED_MS = 5_000;

export class Tokens {
  #current: Promise<string> | null = null;
  #fetchedAt = -Infinity;

  constructor(
    private readonly source: Token | undefined,
    private readonly monotonic: () => number = () => performance.now(),
  ) {}

  /** Whether another call can give another token. */
  get isRenewable(): boolean {
    return typeof this.source === "function";
  }

  /** The token for a connect: that of the other namespace if it was fetched just now. */
  forConnect(): Promise<string | undefined> {
    if (this.#current !== null && this.monotonic() - this.#fetchedAt < SHARED_MS) {
      return this.#current;
    }
    return this.fetch();
  }

  /** A fresh token; raises `client.token` if the function fails. */
  fetch(): Promise<string | undefined> {
    if (typeof this.source !== "function") {
      return Promise.resolve(this.source?.trim());
    }
    const fetched = callSource(this.source);
    this.#current = fetched;
    this.#fetchedAt = this.monotonic();
    fetched.catch(() => this.forget());
    return fetched;
  }

  /** The server refused the token: the next connect must not use it again. */
  forget(): void {
    this.#current = null;
  }
}

async function callSource(source: () => string | Promise<string>): Promise<string> {
  try {
    return (await source()).trim();
  } catch (error) {
    throw new FloorcastError("client.token", `the token function failed: ${String(error)}`);
  }
}
