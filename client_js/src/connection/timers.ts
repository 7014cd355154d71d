/** Timers that a test can run by hand. */

export interface Timers {
  /** Call later; returns a function that cancels it. */
  after(milliseconds: number, call: () => void): () => void;
  /** Call before the next frame is painted: once each 16 ms without a screen. */
  frame(call: () => void): () => void;
}

export const timers: Timers = {
  after(milliseconds, call) {
    const timer = setTimeout(call, milliseconds);
    return () => clearTimeout(timer);
  },
  frame(call) {
    if (typeof requestAnimationFrame === "function") {
      const id = requestAnimationFrame(call);
      return () => cancelAnimationFrame(id);
    }
    return this.after(16, call);
  },
};
