/** The server's time, from its welcome and the local monotonic clock. */

export class ServerClock {
  #offset: number | null = null;

  constructor(private readonly monotonic: () => number = () => performance.now()) {}

  /** The server says that it is so late, in ms. */
  set(serverTime: number): void {
    this.#offset = serverTime - this.monotonic();
  }

  /** The server's time in ms; the local time before the first welcome. */
  now(): number {
    return this.#offset === null ? Date.now() : this.monotonic() + this.#offset;
  }

  /** How old something is that the server stamped with `ts`, in ms, never negative. */
  age(ts: number): number {
    return Math.max(0, this.now() - ts);
  }
}
