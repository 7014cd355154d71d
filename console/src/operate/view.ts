/** One of the lists of Operate, shown under its tab. */
import { short } from "../kit/format.js";

export interface View {
  readonly id: string;
  readonly title: string;
  readonly element: HTMLElement;
  /** Ask the server, and show the answer; rejects with an `ApiError`. */
  refresh(): Promise<void>;
}

/** What a list can do besides. */
export interface Surroundings {
  /** Note what the user did, or why it failed. */
  report(kind: "good" | "problem", text: string): void;
  /** Show what has changed by it. */
  refreshSoon(): void;
}

/** A number of things: whole, and in few characters. */
export function whole(count: number): string {
  return count < 10_000 ? `${Math.round(count)}` : short(count);
}

/** So many in a second, null while unknown. */
export function perSecond(rate: number | null): string {
  return rate === null ? "–" : rate === 0 ? "0" : short(rate);
}
