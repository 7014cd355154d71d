"""Floorcast's client for Python: market data and shared sessions over one connection."""

from client_sdk.client import Client
from client_sdk.config import ClientConfig
from client_sdk.connection.backoff import BackoffConfig
from client_sdk.connection.states import ClientState
from client_sdk.contract import (
    AnyMessage,
    BookMessage,
    BotStatusMessage,
    FeedState,
    MarketMessage,
    Notification,
    OrderUpdateMessage,
    Participant,
    Position,
    PriceMessage,
    RiskAlertMessage,
    SessionEvent,
    SessionMessage,
    SessionSignal,
    Status,
    Stream,
    TradesMessage,
    UserDataMessage,
    UserJoined,
    UserLeft,
)
from client_sdk.errors import (
    AuthenticationError,
    BufferFull,
    ClientClosed,
    ConfigError,
    ConnectionLost,
    FloorcastError,
    ForbiddenError,
    InvalidData,
    LimitExceeded,
    NotConnected,
    ProtocolError,
    PublishConflict,
    RequestRefused,
    SendTimeout,
    ServerUnavailable,
    SessionError,
    TokenRevoked,
    TokenUnavailable,
    TopicError,
)
from client_sdk.market.book import Book
from client_sdk.market.live_book import BookState, BookStatus, LiveBook
from client_sdk.market.market import Market
from client_sdk.reading.gaps import Gap, GapReason
from client_sdk.reading.streams import Callback, MessageStream
from client_sdk.sessions.session import Attendance, PresenceChanged, Sent, Session
from client_sdk.sessions.sessions import Sessions
from client_sdk.stats import Latency, Stats
from client_sdk.sync.client import SyncClient

__version__ = "0.1.0"

__all__ = [
    "AnyMessage",
    "Attendance",
    "AuthenticationError",
    "BackoffConfig",
    "Book",
    "BookMessage",
    "BookState",
    "BookStatus",
    "BotStatusMessage",
    "BufferFull",
    "Callback",
    "Client",
    "ClientClosed",
    "ClientConfig",
    "ClientState",
    "ConfigError",
    "ConnectionLost",
    "FeedState",
    "FloorcastError",
    "ForbiddenError",
    "Gap",
    "GapReason",
    "InvalidData",
    "Latency",
    "LimitExceeded",
    "LiveBook",
    "Market",
    "MarketMessage",
    "MessageStream",
    "NotConnected",
    "Notification",
    "OrderUpdateMessage",
    "Participant",
    "Position",
    "PresenceChanged",
    "PriceMessage",
    "ProtocolError",
    "PublishConflict",
    "RequestRefused",
    "RiskAlertMessage",
    "SendTimeout",
    "Sent",
    "ServerUnavailable",
    "Session",
    "SessionError",
    "SessionEvent",
    "SessionMessage",
    "SessionSignal",
    "Sessions",
    "Stats",
    "Status",
    "Stream",
    "SyncClient",
    "TokenRevoked",
    "TokenUnavailable",
    "TopicError",
    "TradesMessage",
    "UserDataMessage",
    "UserJoined",
    "UserLeft",
]
