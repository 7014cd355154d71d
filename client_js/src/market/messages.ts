/** The messages of topics and the events that carry them. */
import type { AnyMessage, Heartbeat, Position, Stream } from "../contract.js";

export type Received = AnyMessage | Heartbeat;
export type MessageOf<S extends Stream> = Extract<AnyMessage, { stream: S }>;

export const STREAMS: readonly Stream[] = [
  "PRICE",
  "ORDERBOOK",
  "TRADES",
  "USER_DATA",
  "BOT_STATUS",
  "RISK_ALERTS",
  "ORDER_UPDATES",
];

/** Messages that were lost: the server does not have them any more. */
export interface Gap {
  readonly topic: string;
  readonly epoch: string;
  readonly missedFrom: number;
  /** Unknown if the server began a new epoch. */
  readonly missedTo: number | null;
}

export function positionOf(message: { epoch: string; seq: number }): Position {
  return { epoch: message.epoch, seq: message.seq };
}

/** Prices and books replace what was before; of other streams every message counts. */
export function isMerged(topic: string): boolean {
  return /^(PRICE|ORDERBOOK)\b/.test(topic) || topic.startsWith("TRADES:") && topic.includes("@");
}

/** `PRICE:BTCUSDT`, `ORDERBOOK:BTCUSDT@10`, or `USER_DATA` alone. */
export function topicOf(message: { stream: Stream; symbol: string | null; view?: string }): string {
  const { stream, symbol, view } = message;
  if (symbol === null) {
    return stream;
  }
  return view === undefined ? `${stream}:${symbol}` : `${stream}:${symbol}@${view}`;
}
