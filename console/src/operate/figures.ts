/** What the HTTP API answers, as far as it is shown here. */

export interface Stats {
  readonly nodes: number;
  readonly connections: number;
  readonly users: number;
  readonly figures: Readonly<Record<string, number>>;
  readonly refusals?: Readonly<Record<string, number>>;
  readonly incomplete: readonly string[];
}

export interface Feed {
  readonly name: string;
  readonly live: boolean;
  readonly messages: number;
  readonly failures: number;
  readonly silent_seconds: number;
}

export interface NodeInfo {
  readonly node: string;
  readonly version: string;
  readonly pid: number;
  readonly started_at: number;
  readonly ready: boolean;
  readonly connections: number;
  readonly users: number;
  readonly figures: Readonly<Record<string, number>>;
  readonly feeds?: readonly Feed[];
  readonly memory_bytes?: number;
}

export interface Connection {
  readonly connection_id: string;
  readonly node: string;
  readonly user_id: string;
  readonly namespace: string;
  readonly ip: string;
  readonly connected_at: number;
  readonly bytes_waiting: number;
  readonly lag: number;
  readonly merged: number;
  readonly subscriptions: readonly { readonly topic: string; readonly interval_ms: number }[];
  readonly sessions: readonly string[];
}

export interface Topic {
  readonly topic: string;
  readonly subscribers: number;
  readonly state: string;
  readonly epoch: string;
  readonly seq: number;
  readonly since_ms?: number;
}

export interface SessionInfo {
  readonly session_id: string;
  readonly participant_count: number;
  readonly closed: boolean;
}

export interface SessionDetail extends SessionInfo {
  readonly participants: readonly {
    readonly user_id: string;
    readonly connections: number;
    readonly joined_at: number;
  }[];
  readonly seq: number;
}

export interface SessionLine {
  readonly seq: number;
  readonly user_id: string;
  readonly ts: number;
  readonly data: Readonly<Record<string, unknown>>;
}

/** The increase of counters in a second, from one answer to the next. */
export class Rates {
  #before: Readonly<Record<string, number>> = {};
  #at = 0;
  #rates: Record<string, number> = {};

  add(counters: Readonly<Record<string, number>>, now: number): void {
    const seconds = (now - this.#at) / 1_000;
    this.#rates = {};
    for (const [name, value] of Object.entries(counters)) {
      const before = this.#before[name];
      // A restarted process counts from zero again.
      if (before !== undefined && value >= before && seconds > 0) {
        this.#rates[name] = (value - before) / seconds;
      }
    }
    this.#before = counters;
    this.#at = now;
  }

  /** Null before the second answer. */
  get(name: string): number | null {
    return this.#rates[name] ?? null;
  }
}
