/** A client on a mock server, with time that a test passes by hand. */
import { afterEach, beforeEach, vi } from "vitest";
import { Client, type ClientOptions, type Readable } from "../../src/index.js";
import { MockServer } from "../../src/testing.js";

export const PRICE = { bid: "1.00", ask: "1.02", last: "1.01", volume: "5" };
export const BOOK = { bids: [["10.0", "1"]], asks: [["10.5", "5"]] };

export function trade(id: number) {
  return { trades: [{ id, price: "1", qty: "2", side: "buy", ts: id }] };
}

export function useManualTime(): void {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });
}

/** Let so much time pass, and with it frames and requests. */
export async function pass(milliseconds = 40): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

export function connect(options: ClientOptions = {}) {
  const server = new MockServer();
  const client = new Client("http://mock", { token: "t", open: server.open, ...options });
  return { server, client };
}

/** Listen to a value; `values` has each that it took. */
export function watch<T>(store: Readable<T>): { values: T[]; stop: () => void } {
  const values: T[] = [];
  return { values, stop: store.subscribe(() => values.push(store.get())) };
}
