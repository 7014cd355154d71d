// The wire contract of Floorcast, generated from the models of the server by
//     floorcast contract --format typescript
// Use it with the stock client:
//     const market: Socket<ServerToClientEvents["/market"], ClientToServerEvents["/market"]> =
//       io(url + "/market", { auth: { token } });

/** A message of any stream. */
export type AnyMessage =
  | PriceMessage
  | BookMessage
  | TradesMessage
  | UserDataMessage
  | BotStatusMessage
  | RiskAlertMessage
  | OrderUpdateMessage;

/** A candle: the trades of one interval, which begins at `t` in ms; `n` is their number. */
export interface Bar {
  t: number;
  o: string;
  h: string;
  l: string;
  c: string;
  v: string;
  n: number;
  closed: boolean;
}

/** Book levels as a client reads them: unknown fields of a newer server are ignored. */
export interface BookData {
  bids: [string, string][];
  asks: [string, string][];
  checksum?: number | null;
}

/** An order book snapshot, or the levels that changed. */
export interface BookMessage {
  epoch: string;
  seq: number;
  ts: number;
  stream: "ORDERBOOK";
  symbol: string;
  view?: string;
  type: "snapshot" | "update";
  prev: number;
  source_ts?: number;
  merged?: number;
  age_ms?: number;
  data: BookData;
}

/** The data of a BOT_STATUS message. */
export interface BotStatus {
  bot_id?: string | number | null;
  status?: string | null;
  [field: string]: unknown;
}

/** The status of a bot. */
export interface BotStatusMessage {
  epoch: string;
  seq: number;
  ts: number;
  stream: "BOT_STATUS";
  symbol: string | null;
  view?: string;
  type: "snapshot" | "update";
  prev: number;
  source_ts?: number;
  merged?: number;
  age_ms?: number;
  data: BotStatus;
}

/** The reply to `candles`: bars, oldest first. */
export type CandlesReply =
  | {
      ok: true;
      symbol: string;
      interval: string;
      bars: Bar[];
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** `close` a session for everybody. */
export interface CloseSession {
  session_id: string;
}

/** The `auth` payload of a Socket.IO CONNECT; ignores fields of other clients. */
export interface ConnectAuth {
  token?: string | null;
  session_id?: string | null;
  pid?: string | null;
  offset?: string | null;
  recovery?: boolean;
}

/** The payload of a Socket.IO CONNECT_ERROR packet. */
export interface ConnectError {
  message: string;
  data?: ErrorBody;
}

/** Why the server refused something; a newer server may use a `code` unknown to this SDK. */
export interface ErrorBody {
  code: ErrorCode | (string & {});
  message: string;
  retry_after_ms?: number;
  details?: Record<string, unknown>;
}

/** Why the server refused something; the part before the dot names the area. */
export type ErrorCode =
  | "auth.missing"
  | "auth.invalid"
  | "auth.expired"
  | "auth.forbidden"
  | "auth.revoked"
  | "auth.unavailable"
  | "limit.connections"
  | "limit.rate"
  | "limit.topics"
  | "limit.payload"
  | "limit.share"
  | "request.invalid"
  | "request.unknown_event"
  | "topic.unknown"
  | "session.not_joined"
  | "session.closed"
  | "publish.conflict"
  | "publish.snapshot_required"
  | "server.draining"
  | "server.overloaded"
  | "server.internal";

/**
 * The state of a topic's feed; after ERROR the subscription has ended.
 *
 * HALTED and CLOSED are the trading state of the symbol: its silence is no fault of the feed.
 */
export type FeedState = "LIVE" | "STALE" | "RESYNC" | "HALTED" | "CLOSED" | "ERROR";

/** `candles`: the newest bars of a symbol, or those that begin before a time in ms. */
export interface FetchCandles {
  symbol: string;
  interval: "1s" | "5s" | "1m" | "5m" | "15m" | "1h" | "4h" | "1d";
  limit?: number;
  before?: number | null;
}

/** `history`: the newest messages, or those before `before_seq`. */
export interface FetchHistory {
  session_id: string;
  before_seq?: number | null;
  limit?: number;
}

/** `goodbye`: the last event before the server ends a connection or namespace. */
export interface Goodbye {
  code: ErrorCode | (string & {});
  message: string;
  reconnect: boolean;
  after_ms: number;
}

/** The newest position of a quiet topic, in the event of its stream; its data is empty. */
export interface Heartbeat {
  epoch: string;
  seq: number;
  ts: number;
  stream: Stream;
  symbol: string | null;
  view?: string;
  type: "heartbeat";
  prev: number;
  source_ts?: number;
  merged?: number;
  age_ms?: number;
  data: Record<string, unknown>;
}

/** The reply to `history`. */
export type HistoryReply =
  | {
      ok: true;
      messages: SessionMessage[];
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** `instrument`, and one of `instruments`: a symbol with what publishers say of it. */
export interface Instrument {
  symbol: string;
  base?: string;
  quote?: string;
  tick_size?: string;
  lot_size?: string;
  status: InstrumentStatus;
  streams: Stream[];
  [field: string]: unknown;
}

/** The trading state of a symbol. */
export type InstrumentStatus = "OPEN" | "HALTED" | "CLOSED";

/** The reply to `instruments`, by symbol; ask again `after` the last one if it `has_more`. */
export type InstrumentsReply =
  | {
      ok: true;
      instruments: Instrument[];
      has_more?: boolean;
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** `join` a session; `since` asks for missed messages, `metadata` describes a new session. */
export interface Join {
  session_id: string;
  since?: Position | null;
  metadata?: Record<string, unknown> | null;
}

/** The reply to `join`. */
export type JoinReply =
  | {
      ok: true;
      participant_count: number;
      participants: Participant[];
      session_id: string;
      epoch: string;
      seq: number;
      recovered: boolean;
      messages: SessionMessage[];
      metadata: Record<string, unknown>;
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** `kick` a user out of a session, on every device. */
export interface Kick {
  session_id: string;
  user_id: string;
}

/** `leave` a session. */
export interface Leave {
  session_id: string;
}

/**
 * `instruments`: list symbols; with `follow`, each change comes as an `instrument` event.
 *
 * `match` is a pattern such as `BTC*`. A reply has at most 1,000: ask again `after` the last one.
 */
export interface ListInstruments {
  symbols?: string[] | null;
  match?: string;
  follow?: boolean;
  after?: string;
}

/** `participants`: list the users in a session. */
export interface ListParticipants {
  session_id: string;
}

/** `subscriptions`: list the topics of this connection. */
export interface ListSubscriptions {
  [field: string]: never;
}

/** The reply to `kick` and `close`: the number of connections that were removed. */
export type ModerationReply =
  | {
      ok: true;
      connections: number;
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** `notification`: for one user, on every device; a critical one asks for an acknowledgement. */
export interface Notification {
  id: string;
  event: string;
  data: Record<string, unknown>;
  critical: boolean;
  ts: number;
}

/** The data of an ORDER_UPDATES message. */
export interface OrderUpdate {
  order_id?: string | number | null;
  symbol?: string | null;
  side?: string | null;
  status?: string | null;
  price?: string | number | null;
  qty?: string | number | null;
  filled?: string | number | null;
  [field: string]: unknown;
}

/** The new state of an order. */
export interface OrderUpdateMessage {
  epoch: string;
  seq: number;
  ts: number;
  stream: "ORDER_UPDATES";
  symbol: string | null;
  view?: string;
  type: "snapshot" | "update";
  prev: number;
  source_ts?: number;
  merged?: number;
  age_ms?: number;
  data: OrderUpdate;
}

/** One user in a session; `joined_at` is when the first connection joined, in ms. */
export interface Participant {
  user_id: string;
  connections: number;
  joined_at: number;
}

/** The reply to `participants`. */
export type ParticipantsReply =
  | {
      ok: true;
      participant_count: number;
      participants: Participant[];
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/**
 * The outcome for a pattern: the replies of the topics that match now.
 *
 * If more match than the connection may have, `refused` is their number and `limit` the error.
 */
export interface PatternReply {
  status: string;
  matched: number;
  topics: Record<string, TopicReply>;
  refused?: number;
  limit?: ErrorBody;
}

/** A position in the history of a topic or session. */
export interface Position {
  epoch: string;
  seq: number;
}

/** The data of a PRICE message. */
export interface PriceData {
  bid: string;
  ask: string;
  last: string;
  volume: string;
  [field: string]: unknown;
}

/** The price of a symbol. */
export interface PriceMessage {
  epoch: string;
  seq: number;
  ts: number;
  stream: "PRICE";
  symbol: string;
  view?: string;
  type: "snapshot" | "update";
  prev: number;
  source_ts?: number;
  merged?: number;
  age_ms?: number;
  data: PriceData;
}

/**
 * One message to publish; an `id` makes it idempotent, `user` names a private topic's owner.
 *
 * `source_ts` is the venue's time of the message.
 */
export interface Publication {
  topic: string;
  data: Record<string, unknown>;
  type?: "update" | "snapshot";
  id?: string | null;
  user?: string | null;
  source_ts?: number | null;
}

/** `publish` one or more messages; the server validates each as a `Publication` of its own. */
export interface Publish {
  messages: Publication[];
}

/** The reply to `publish`: one outcome for each message, in order. */
export type PublishReply =
  | {
      ok: true;
      positions: (PublishedPosition | RejectedPublication)[];
    }
  | {
      ok: false;
      error: ErrorBody;
      positions?: (PublishedPosition | RejectedPublication)[];
    };

/** The position of a published message; unlike a request's `Position`, not strict. */
export interface PublishedPosition {
  epoch: string;
  seq: number;
}

/** What a client gets of trades: the trades, or the bars of a view. */
export interface ReceivedTradesData {
  trades?: Trade[];
  bars?: Bar[];
  [field: string]: unknown;
}

/** `reconnect_hint`: the server asks the client to reconnect after a delay. */
export interface ReconnectHint {
  after_ms: number;
}

/** The reply to `refresh_token`; `topics` has those that the newer token no longer allows. */
export type RefreshReply =
  | {
      ok: true;
      expires_at: number;
      topics?: Record<string, TopicReply>;
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** `refresh_token`: continue with a newer token of the same user. */
export interface RefreshToken {
  token: string;
}

/** Why one message of a batch was not published. */
export interface RejectedPublication {
  error: ErrorBody;
}

/** The reply to a request that has nothing to return. */
export type Reply =
  | {
      ok: true;
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** The data of a RISK_ALERTS message. */
export interface RiskAlert {
  level?: string | number | null;
  message?: string | null;
  [field: string]: unknown;
}

/** A risk alert. */
export interface RiskAlertMessage {
  epoch: string;
  seq: number;
  ts: number;
  stream: "RISK_ALERTS";
  symbol: string | null;
  view?: string;
  type: "snapshot" | "update";
  prev: number;
  source_ts?: number;
  merged?: number;
  age_ms?: number;
  data: RiskAlert;
}

/** `send` a message to everybody in a session; an `id` makes it idempotent. */
export interface Send {
  session_id: string;
  data: Record<string, unknown>;
  id?: string | null;
}

/** The reply to `send`. */
export type SendReply =
  | {
      ok: true;
      id: string;
      epoch: string;
      seq: number;
      ts: number;
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** `session_closed`: the session was closed, or this connection is no longer in it. */
export interface SessionClosed {
  session_id: string;
  reason: string;
  ts: number;
}

/** `message`: one message of a session. */
export interface SessionMessage {
  epoch: string;
  seq: number;
  ts: number;
  session_id: string;
  id: string;
  user_id: string;
  data: Record<string, unknown>;
}

/** `signal`: a transient event of another participant. */
export interface SessionSignal {
  session_id: string;
  user_id: string;
  data: Record<string, unknown>;
  ts: number;
}

/** `signal` something transient, such as typing; the server does not store it. */
export interface Signal {
  session_id: string;
  data: Record<string, unknown>;
}

/** A time, in ms: the messages of a topic that the server received then or later. */
export interface SinceTime {
  ts: number;
}

/** `status`: the freshness of a topic's feed. */
export interface Status {
  stream: Stream;
  symbol: string | null;
  view?: string;
  state: FeedState;
  since_ms?: number;
  error?: ErrorBody;
}

/** The kinds of market data. */
export type Stream =
  | "PRICE"
  | "ORDERBOOK"
  | "TRADES"
  | "USER_DATA"
  | "BOT_STATUS"
  | "RISK_ALERTS"
  | "ORDER_UPDATES";

/** `subscribe` to one or more topics; `last` asks for so many kept messages of each. */
export interface Subscribe {
  topics: string[];
  interval_ms?: number;
  since?: Record<string, Position | SinceTime>;
  last?: number;
}

/** The reply to `subscribe` and to `subscriptions`; not `ok` if every topic was refused. */
export type SubscribeReply =
  | {
      ok: true;
      topics: Record<string, PatternReply | TopicReply>;
    }
  | {
      ok: false;
      error: ErrorBody;
      topics?: Record<string, PatternReply | TopicReply>;
    };

/** `token_expiring`: the token ends soon; `refresh_token` avoids a reconnect. */
export interface TokenExpiring {
  expires_in_ms: number;
}

/** The outcome for one topic; only a granted subscription has a position. */
export type TopicReply =
  | {
      status: "CONNECTED";
      state?: FeedState;
      known: boolean;
      epoch: string;
      seq: number;
      interval_ms: number;
      recovered: boolean;
      snapshot: AnyMessage | null;
      missed: AnyMessage[];
    }
  | {
      status: "ERROR";
      error: ErrorBody;
    };

/** One trade. */
export interface Trade {
  id: string | number;
  price: string;
  qty: string;
  side: "buy" | "sell";
  ts: number;
  [field: string]: unknown;
}

/** Trades of a symbol. */
export interface TradesMessage {
  epoch: string;
  seq: number;
  ts: number;
  stream: "TRADES";
  symbol: string;
  view?: string;
  type: "snapshot" | "update";
  prev: number;
  source_ts?: number;
  merged?: number;
  age_ms?: number;
  data: ReceivedTradesData;
}

/** `unsubscribe` from topics. */
export interface Unsubscribe {
  topics: string[];
}

/** The reply to `unsubscribe`. */
export type UnsubscribeReply =
  | {
      ok: true;
      topics: Record<string, UnsubscribedTopic>;
    }
  | {
      ok: false;
      error: ErrorBody;
    };

/** The outcome for one topic that a client unsubscribed from. */
export interface UnsubscribedTopic {
  status: "DISCONNECTED";
}

/** The data of a USER_DATA message: any object about the user. */
export interface UserData {
  [field: string]: unknown;
}

/** Private data of the user. */
export interface UserDataMessage {
  epoch: string;
  seq: number;
  ts: number;
  stream: "USER_DATA";
  symbol: string | null;
  view?: string;
  type: "snapshot" | "update";
  prev: number;
  source_ts?: number;
  merged?: number;
  age_ms?: number;
  data: UserData;
}

/** `user_joined`: the user's first connection joined the session. */
export interface UserJoined {
  session_id: string;
  user_id: string;
  participant_count: number;
  ts: number;
}

/** `user_left`: the user's last connection left the session. */
export interface UserLeft {
  session_id: string;
  user_id: string;
  participant_count: number;
  ts: number;
}

/** `welcome`: the first event after joining a namespace. */
export interface Welcome {
  connection_id: string;
  user_id: string;
  org: string;
  server_time: number;
  ping_interval_ms: number;
  resume_window_ms: number;
  reconnect_spread_ms?: number;
  session_id?: string;
}

/**
 * `will`: publish these messages once the user has been gone for so long; null takes it back.
 *
 * The server validates each message as a `Publication` of its own.
 */
export interface WillRequest {
  after_ms?: number | null;
  messages: Publication[] | null;
}

/** What the server sends, by namespace. */
export interface ServerToClientEvents {
  "/market": {
    welcome: (payload: Welcome, offset?: string) => void;
    token_expiring: (payload: TokenExpiring, offset?: string) => void;
    reconnect_hint: (payload: ReconnectHint, offset?: string) => void;
    goodbye: (payload: Goodbye, offset?: string) => void;
    error: (payload: ErrorBody, offset?: string) => void;
    price: (payload: PriceMessage | Heartbeat, offset?: string) => void;
    orderbook: (payload: BookMessage | Heartbeat, offset?: string) => void;
    trades: (payload: TradesMessage | Heartbeat, offset?: string) => void;
    user_data: (payload: UserDataMessage | Heartbeat, offset?: string) => void;
    bot_status: (payload: BotStatusMessage | Heartbeat, offset?: string) => void;
    risk_alerts: (payload: RiskAlertMessage | Heartbeat, offset?: string) => void;
    order_updates: (payload: OrderUpdateMessage | Heartbeat, offset?: string) => void;
    status: (payload: Status, offset?: string) => void;
    instrument: (payload: Instrument, offset?: string) => void;
  };
  "/session": {
    welcome: (payload: Welcome, offset?: string) => void;
    token_expiring: (payload: TokenExpiring, offset?: string) => void;
    reconnect_hint: (payload: ReconnectHint, offset?: string) => void;
    goodbye: (payload: Goodbye, offset?: string) => void;
    error: (payload: ErrorBody, offset?: string) => void;
    message: (payload: SessionMessage, offset?: string) => void;
    user_joined: (payload: UserJoined, offset?: string) => void;
    user_left: (payload: UserLeft, offset?: string) => void;
    signal: (payload: SessionSignal, offset?: string) => void;
    session_closed: (payload: SessionClosed, offset?: string) => void;
    notification: (payload: Notification, acknowledge?: (() => void) | string) => void;
  };
}

/** What a client sends, by namespace. */
export interface ClientToServerEvents {
  "/market": {
    refresh_token: (payload: RefreshToken, acknowledge: (reply: RefreshReply) => void) => void;
    subscribe: (payload: Subscribe, acknowledge: (reply: SubscribeReply) => void) => void;
    unsubscribe: (payload: Unsubscribe, acknowledge: (reply: UnsubscribeReply) => void) => void;
    subscriptions: (
      payload: ListSubscriptions,
      acknowledge: (reply: SubscribeReply) => void,
    ) => void;
    publish: (payload: Publish, acknowledge: (reply: PublishReply) => void) => void;
    instruments: (payload: ListInstruments, acknowledge: (reply: InstrumentsReply) => void) => void;
    candles: (payload: FetchCandles, acknowledge: (reply: CandlesReply) => void) => void;
    will: (payload: WillRequest, acknowledge: (reply: Reply) => void) => void;
  };
  "/session": {
    refresh_token: (payload: RefreshToken, acknowledge: (reply: RefreshReply) => void) => void;
    join: (payload: Join, acknowledge: (reply: JoinReply) => void) => void;
    leave: (payload: Leave, acknowledge: (reply: Reply) => void) => void;
    send: (payload: Send, acknowledge: (reply: SendReply) => void) => void;
    signal: (payload: Signal, acknowledge: (reply: Reply) => void) => void;
    history: (payload: FetchHistory, acknowledge: (reply: HistoryReply) => void) => void;
    participants: (
      payload: ListParticipants,
      acknowledge: (reply: ParticipantsReply) => void,
    ) => void;
    kick: (payload: Kick, acknowledge: (reply: ModerationReply) => void) => void;
    close: (payload: CloseSession, acknowledge: (reply: ModerationReply) => void) => void;
  };
}
