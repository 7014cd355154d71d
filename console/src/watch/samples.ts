/** The prices of the last minutes, at equal distances: what a sparkline draws. */

export const SAMPLE_MS = 5_000;
const MAX_SAMPLES = 60;

export class Samples {
  #values: number[] = [];
  /** The time of the newest sample, in steps of `SAMPLE_MS`. */
  #step = 0;

  get values(): readonly number[] {
    return this.#values;
  }

  /** The price at a time in ms; the last one of a step counts. */
  add(ts: number, value: number): void {
    const step = Math.floor(ts / SAMPLE_MS);
    if (this.#values.length === 0 || step - this.#step >= MAX_SAMPLES) {
      this.#values = [value];
    } else if (step <= this.#step) {
      this.#values[this.#values.length - 1] = value;
      return;
    } else {
      // Nothing was traded meanwhile.
      const before = this.#values.at(-1) as number;
      for (let missing = step - this.#step; missing > 1; missing -= 1) {
        this.#values.push(before);
      }
      this.#values.push(value);
      this.#values = this.#values.slice(-MAX_SAMPLES);
    }
    this.#step = step;
  }

  /** Put samples from the past in front, by the time of their steps. */
  seed(past: readonly (readonly [ts: number, value: number])[]): void {
    const own = this.#values;
    const first = this.#step - own.length + 1;
    const before = new Samples();
    past
      .filter(([ts]) => own.length === 0 || Math.floor(ts / SAMPLE_MS) < first)
      .forEach(([ts, value]) => before.add(ts, value));
    own.forEach((value, index) => before.add((first + index) * SAMPLE_MS, value));
    this.#values = before.#values;
    this.#step = before.#step;
  }
}
