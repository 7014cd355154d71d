/** The one error of this package; `code` is the server's, or one of the client's own. */
import type { ErrorBody, ErrorCode } from "./contract.js";

export type ClientErrorCode =
  /** The client was closed. */
  | "client.closed"
  /** No reply in time. */
  | "client.timeout"
  /** There is no connection, or it was lost before the reply. */
  | "client.offline"
  /** The token function failed. */
  | "client.token"
  /** Too much waits to be sent. */
  | "client.overflow";

export class FloorcastError extends Error {
  override readonly name = "FloorcastError";

  constructor(
    readonly code: ErrorCode | ClientErrorCode | (string & {}),
    message: string,
    readonly retryAfterMs?: number,
    readonly details?: Record<string, unknown>,
  ) {
    super(message || code);
  }

  static of(body: ErrorBody): FloorcastError {
    return new FloorcastError(body.code, body.message, body.retry_after_ms, body.details);
  }
}
