export { Client, type ClientOptions } from "./client.js";
export type { ConnectionInfo } from "./connection/connection.js";
export type { NamespaceState } from "./connection/namespace.js";
export type { ManagerLike, ManagerSettings, OpenManager, SocketLike } from "./connection/socket.js";
export { openManager } from "./connection/socket.js";
export type { Timers } from "./connection/timers.js";
export type { Token } from "./connection/tokens.js";
export type * from "./contract.js";
export { type ClientErrorCode, FloorcastError } from "./errors.js";
export { Book, type Level } from "./market/book.js";
export { type CandleInterval, type Candles, mergeBars } from "./market/candles.js";
export { compareDecimals } from "./market/decimals.js";
export type { Instruments, InstrumentsOptions } from "./market/instruments.js";
export type {
  BookOptions,
  CandleOptions,
  Market,
  PriceOptions,
  TradesOptions,
} from "./market/market.js";
export type { Gap } from "./market/messages.js";
export type { Prices } from "./market/prices.js";
export { liveStatus } from "./market/stores.js";
export type { BookView, Live, LiveStatus, Price, Tape } from "./market/stores.js";
export type { TopicListener, TopicStatus } from "./market/subscription.js";
export type { WillOptions } from "./market/will.js";
export type { PendingMessage, Sent } from "./session/outbox.js";
export type { Session, SessionOptions, SessionStatus, SessionView } from "./session/session.js";
export type { NoticeHandler } from "./session/sessions.js";
export type { Readable } from "./store.js";
