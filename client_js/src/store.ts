/** A value that changes, for `useSyncExternalStore` and the like: listeners run once a frame. */
import type { Frames } from "./connection/frames.js";

export interface Readable<T> {
  /** The value as of the last frame; it is another object if and only if it changed. */
  get(): T;
  /** Call `listener` in the frame after each change, until the returned function is called. */
  subscribe(listener: () => void): () => void;
}

export abstract class Store<T> implements Readable<T> {
  readonly #listeners = new Set<() => void>();
  #value: T | undefined;
  #isStale = true;

  /** At most one change in `intervalMs`, also if the server sends more for other listeners. */
  protected constructor(
    private readonly frames: Frames,
    private readonly intervalMs = 0,
  ) {}

  // Functions of their own, since `useSyncExternalStore(store.subscribe, store.get)` calls them bare.
  readonly get = (): T => {
    // Between frames the value must not change under a rendering component.
    if (this.#value === undefined || (this.#isStale && this.#listeners.size === 0)) {
      this.#refresh();
    }
    return this.#value as T;
  };

  readonly subscribe = (listener: () => void): (() => void) => {
    // The same function may be passed twice.
    const call = () => listener();
    if (this.#listeners.size === 0) {
      this.#isStale = true;
      this.start();
    }
    this.#listeners.add(call);
    return () => {
      if (this.#listeners.delete(call) && this.#listeners.size === 0) {
        this.stop();
      }
    };
  };

  /** Build the value as it is now. */
  protected abstract build(): T;

  /** The first listener has come. */
  protected start(): void {}

  /** The last listener has gone. */
  protected stop(): void {}

  get isWatched(): boolean {
    return this.#listeners.size > 0;
  }

  /** Note a change; the listeners hear of it in the next frame. */
  protected changed(): void {
    this.#isStale = true;
    if (this.#listeners.size > 0) {
      this.frames.add(this.#flush, this.intervalMs);
    }
  }

  readonly #flush = (): void => {
    this.#refresh();
    this.#listeners.forEach((call) => call());
  };

  #refresh(): void {
    this.#isStale = false;
    this.#value = this.build();
  }
}
