/** Calls of the HTTP API with the token of the page. */
import { type Access, BASE } from "./access.js";

const TIMEOUT_MS = 10_000;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

export class Api {
  constructor(private readonly access: Access) {}

  get<T>(path: string): Promise<T> {
    return this.#call<T>("GET", path);
  }

  post<T>(path: string, body: object = {}): Promise<T> {
    return this.#call<T>("POST", path, body);
  }

  put<T>(path: string, body: object): Promise<T> {
    return this.#call<T>("PUT", path, body);
  }

  delete<T>(path: string): Promise<T> {
    return this.#call<T>("DELETE", path);
  }

  /** Rejects with an `ApiError`: status 0 if the server cannot be reached. */
  async #call<T>(method: string, path: string, body?: object): Promise<T> {
    let response: Response;
    let answer: { error?: { code: string; message: string } };
    try {
      response = await fetch(`${BASE}api/v1/${path}`, {
        method,
        headers: {
          Authorization: `Bearer ${this.access.current}`,
          ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        },
        signal: AbortSignal.timeout(TIMEOUT_MS),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      answer = (await response.json()) as typeof answer;
    } catch {
      throw new ApiError(0, "client.offline", "the server cannot be reached");
    }
    if (!response.ok) {
      const { code = "server.internal", message = response.statusText } = answer.error ?? {};
      throw new ApiError(response.status, code, message);
    }
    return answer as T;
  }
}
