"""The names of the wire: streams, namespaces, scopes and states."""

from enum import StrEnum

MARKET_NAMESPACE = "/market"
SESSION_NAMESPACE = "/session"

# The paces that can be asked for: 0 is every update as it comes.
INTERVALS_MS = (0, 100, 250, 1000)

MAX_TOPIC_CHARACTERS = 80
SYMBOL_PATTERN = r"^[A-Z0-9][A-Z0-9._/-]{0,31}$"
SESSION_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$"


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
        """Whether its topics name a symbol; the others belong to one user."""
        return self in _PER_SYMBOL

    @property
    def is_conflated(self) -> bool:
        """Whether a newer message may stand for older ones; the others are kept, every one."""
        return self in _CONFLATED


_CONFLATED = frozenset((Stream.PRICE, Stream.ORDERBOOK))
_PER_SYMBOL = frozenset((Stream.PRICE, Stream.ORDERBOOK, Stream.TRADES))


class Scope(StrEnum):
    """What a token may allow."""

    MARKET_READ = "market:read"
    MARKET_PUBLISH = "market:publish"
    SESSION_JOIN = "session:join"
    SESSION_MODERATE = "session:moderate"
    ADMIN = "admin"


class SubscriptionStatus(StrEnum):
    """Where a subscription stands."""

    PENDING = "PENDING"
    CONNECTED = "CONNECTED"
    DISCONNECTED = "DISCONNECTED"
    ERROR = "ERROR"
    RECONNECTING = "RECONNECTING"


class FeedState(StrEnum):
    """Whether a topic's feed speaks."""

    LIVE = "LIVE"
    STALE = "STALE"
    RESYNC = "RESYNC"
