/** Joins all changes of a frame, and knows whether anybody looks at the page. */
import type { Timers } from "./timers.js";

const HALF_FRAME_MS = 8;
const FRAME_MS = 16;

export class Frames {
  /** When each task may run: in the next frame, or later. */
  readonly #tasks = new Map<() => void, number>();
  readonly #lastRuns = new WeakMap<() => void, number>();
  /** When the tasks are looked at next. */
  #wakesAt = Infinity;
  #cancel: () => void = () => {};

  constructor(private readonly timers: Timers) {}

  /**
   * Run a task in the next frame, once however often it is added; never in a hidden tab. Two runs
   * of it are at least about `intervalMs` apart.
   */
  add(task: () => void, intervalMs = 0): void {
    if (!this.#tasks.has(task)) {
      const last = intervalMs === 0 ? undefined : this.#lastRuns.get(task);
      // Frames are not exact: waiting for the whole interval would often take one frame more.
      const dueAt = last === undefined ? 0 : last + intervalMs - HALF_FRAME_MS;
      this.#tasks.set(task, dueAt);
      this.#wakeAt(dueAt);
    }
  }

  #wakeAt(dueAt: number): void {
    if (dueAt < this.#wakesAt) {
      this.#cancel();
      this.#wakesAt = dueAt;
      const waitMs = dueAt - performance.now();
      if (waitMs > FRAME_MS) {
        this.#cancel = this.timers.after(waitMs - FRAME_MS, () => this.#awaitFrame());
      } else {
        this.#awaitFrame();
      }
    }
  }

  #awaitFrame(): void {
    this.#cancel = this.timers.frame(() => this.#run());
  }

  #run(): void {
    this.#wakesAt = Infinity;
    const now = performance.now();
    const due = [...this.#tasks].filter(([, dueAt]) => dueAt <= now).map(([task]) => task);
    for (const task of due) {
      this.#tasks.delete(task);
      this.#lastRuns.set(task, now);
    }
    due.forEach((task) => task());
    if (this.#tasks.size > 0) {
      this.#wakeAt(Math.min(...this.#tasks.values()));
    }
  }
}

/** The visibility of the page; without one, always visible. */
export class Visibility {
  isHidden = false;
  readonly #listeners = new Set<() => void>();
  #cancel: (() => void) | null = null;
  #stop: () => void = () => {};

  /** Counts as hidden once the page was hidden for `lingerMs`; Infinity for never. */
  constructor(
    private readonly timers: Timers,
    private readonly lingerMs: number,
  ) {
    if (typeof document !== "undefined" && lingerMs !== Infinity) {
      const changed = () => this.update(document.visibilityState === "hidden");
      document.addEventListener("visibilitychange", changed);
      this.#stop = () => document.removeEventListener("visibilitychange", changed);
      changed();
    }
  }

  onChange(call: () => void): void {
    this.#listeners.add(call);
  }

  update(isHidden: boolean): void {
    this.#cancel?.();
    this.#cancel = null;
    if (isHidden) {
      this.#cancel = this.timers.after(this.lingerMs, () => this.#become(true));
    } else {
      this.#become(false);
    }
  }

  close(): void {
    this.#cancel?.();
    this.#stop();
  }

  #become(isHidden: boolean): void {
    if (this.isHidden !== isHidden) {
      this.isHidden = isHidden;
      this.#listeners.forEach((call) => call());
    }
  }
}
