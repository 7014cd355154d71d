/** Asks the server again and again, while somebody looks. */

export class Poller {
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isOn = false;
  #isAsking = false;
  #isDue = false;

  /** `ask` is called again `pauseMs` after it has settled; never while the tab is hidden. */
  constructor(
    private readonly ask: () => Promise<void>,
    private readonly pauseMs: number,
  ) {
    document.addEventListener("visibilitychange", () => this.now());
  }

  start(): void {
    this.#isOn = true;
    this.now();
  }

  stop(): void {
    this.#isOn = false;
    clearTimeout(this.#timer);
  }

  /** Ask at once, or as soon as the answer that is under way has come. */
  now(): void {
    clearTimeout(this.#timer);
    this.#isDue = true;
    if (this.#isOn && !this.#isAsking && document.visibilityState === "visible") {
      this.#isAsking = true;
      this.#isDue = false;
      void this.ask().finally(() => this.#onSettled());
    }
  }

  #onSettled(): void {
    this.#isAsking = false;
    if (this.#isOn) {
      this.#timer = setTimeout(() => this.now(), this.#isDue ? 0 : this.pauseMs);
    }
  }
}
