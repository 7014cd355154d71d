"""The names of the wire: error codes, streams, namespaces, scopes and states."""

from enum import StrEnum

MARKET_NAMESPACE = "/market"
SESSION_NAMESPACE = "/session"

# The conflation intervals that a client can ask for; 0 sends every update.
INTERVALS_MS = (0, 100, 250, 1000)

MAX_TOPIC_CHARACTERS = 80
# The colon is for the symbols of derivatives: `BTC/USDT:USDT`.
SYMBOL_PATTERN = r"^[A-Z0-9][A-Z0-9._/:-]{0,31}$"
# A symbol, in which `*` stands for any characters.
SYMBOL_MATCH_PATTERN = r"^[A-Z0-9._/:*-]{1,32}$"
SESSION_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$"


class ErrorCode(StrEnum):
    """Why the server refused something; the part before the dot names the area."""

    AUTH_MISSING = "auth.missing"
    AUTH_INVALID = "auth.invalid"
    AUTH_EXPIRED = "auth.expired"
    AUTH_FORBIDDEN = "auth.forbidden"
    AUTH_REVOKED = "auth.revoked"
    AUTH_UNAVAILABLE = "auth.unavailable"
    LIMIT_CONNECTIONS = "limit.connections"
    LIMIT_RATE = "limit.rate"
    LIMIT_TOPICS = "limit.topics"
    LIMIT_PAYLOAD = "limit.payload"
    LIMIT_SHARE = "limit.share"
    REQUEST_INVALID = "request.invalid"
    REQUEST_UNKNOWN_EVENT = "request.unknown_event"
    TOPIC_UNKNOWN = "topic.unknown"
    SESSION_NOT_JOINED = "session.not_joined"
    SESSION_CLOSED = "session.closed"
    PUBLISH_CONFLICT = "publish.conflict"
    PUBLISH_SNAPSHOT_REQUIRED = "publish.snapshot_required"
    SERVER_DRAINING = "server.draining"
    SERVER_OVERLOADED = "server.overloaded"
    SERVER_INTERNAL = "server.internal"


class Stream(StrEnum):
    """The kinds of market data."""

    PRICE = "PRICE"
    ORDERBOOK = "ORDERBOOK"
    TRADES = "TRADES"
    USER_DATA = "USER_DATA"
    BOT_STATUS = "BOT_STATUS"
    RISK_ALERTS = "RISK_ALERTS"
    ORDER_UPDATES = "ORDER_UPDATES"

    @property
    def event(self) -> str:
        """The Socket.IO event that carries this stream's messages."""
        return self.value.lower()

    @property
    def per_symbol(self) -> bool:
        """True if its topics name a symbol; topics of other streams belong to one user."""
        return self in _PER_SYMBOL

    @property
    def is_conflated(self) -> bool:
        """True if a newer message can replace older ones; other streams keep every message."""
        return self in _CONFLATED


_CONFLATED = frozenset((Stream.PRICE, Stream.ORDERBOOK))
_PER_SYMBOL = frozenset((Stream.PRICE, Stream.ORDERBOOK, Stream.TRADES))


def topic_name(stream: Stream, symbol: str | None, view: str | None = None) -> str:
    """`PRICE:BTCUSDT`, `ORDERBOOK:BTCUSDT@10`, or `USER_DATA` alone."""
    # A stream is a string already; reading `.value` would cost more than the join.
    name = ":".join((stream,) if symbol is None else (stream, symbol))
    return name if view is None else f"{name}@{view}"


class InstrumentStatus(StrEnum):
    """The trading state of a symbol."""

    OPEN = "OPEN"
    HALTED = "HALTED"
    CLOSED = "CLOSED"


class Scope(StrEnum):
    """What a token can allow."""

    MARKET_READ = "market:read"
    MARKET_PUBLISH = "market:publish"
    SESSION_JOIN = "session:join"
    SESSION_MODERATE = "session:moderate"
    ADMIN = "admin"


class HookType(StrEnum):
    """The events that a webhook receives."""

    CONNECTION_OPENED = "connection.opened"
    CONNECTION_CLOSED = "connection.closed"
    USER_ONLINE = "user.online"
    USER_OFFLINE = "user.offline"
    SESSION_OCCUPIED = "session.occupied"
    SESSION_VACATED = "session.vacated"
    TOPIC_OCCUPIED = "topic.occupied"
    TOPIC_VACATED = "topic.vacated"
    FEED_STALE = "feed.stale"
    FEED_LIVE = "feed.live"
    NOTICE_EXPIRED = "notice.expired"


class SubscriptionStatus(StrEnum):
    """The state of a subscription."""

    PENDING = "PENDING"
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    ERROR = "ERROR"
    RECONNECTING = "RECONNECTING"


class FeedState(StrEnum):
    """The state of a topic's feed; after ERROR the subscription has ended.

    HALTED and CLOSED are the trading state of the symbol: its silence is no fault of the feed.
    """

    LIVE = "LIVE"
    STALE = "STALE"
    RESYNC = "RESYNC"
    HALTED = "HALTED"
    CLOSED = "CLOSED"
    ERROR = "ERROR"
