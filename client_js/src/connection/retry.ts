/** When to come back after a refused connect. */
import type { ErrorBody } from "../contract.js";
import { FloorcastError } from "../errors.js";

const MAX_DELAY_MS = 20_000;
const MAX_REFUSED_TOKENS = 3;

/** A delay that doubles with each attempt, at random so that a crowd spreads. */
export function backoff(attempt: number, random: () => number = Math.random): number {
  const bound = Math.min(MAX_DELAY_MS, 500 * 2 ** attempt);
  return bound * (0.5 + random() / 2);
}

/** Whether the same request may be granted later. */
export function passes(error: Pick<ErrorBody, "code" | "retry_after_ms"> | FloorcastError): boolean {
  const { code } = error;
  const pause = error instanceof FloorcastError ? error.retryAfterMs : error.retry_after_ms;
  const isBrief = code === "auth.unavailable" || code === "limit.rate" || code.startsWith("server.");
  return pause !== undefined || isBrief;
}

/** Milliseconds until the next attempt; null if another attempt would be refused too. */
export function refusalDelay(
  error: Pick<ErrorBody, "code" | "retry_after_ms">,
  attempt: number,
  canRenewToken: boolean,
  random: () => number = Math.random,
): number | null {
  if (error.retry_after_ms !== undefined) {
    return error.retry_after_ms * (1 + random() / 2);
  }
  const { code } = error;
  if (code === "auth.missing" || code === "auth.invalid" || code === "auth.expired") {
    return canRenewToken && attempt < MAX_REFUSED_TOKENS - 1 ? backoff(attempt, random) : null;
  }
  return passes(error) ? backoff(attempt, random) : null;
}
