"""Floorcast's client for Python: market data and shared sessions over one connection."""

from client_sdk.backoff import BackoffConfig
from client_sdk.client import Client
from client_sdk.config import ClientConfig
from client_sdk.contract import FeedState, Position, Stream
from client_sdk.errors import (
    AuthenticationError,
    BufferFull,
    ClientClosed,
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
    TokenUnavailable,
    TopicError,
)
from client_sdk.market import Market
from client_sdk.models import (
    AnyMessage,
    BookMessage,
    BotStatusMessage,
    Gap,
    GapReason,
    MarketMessage,
    OrderUpdateMessage,
    PriceMessage,
    RiskAlertMessage,
    SessionMessage,
    SessionSignal,
    TradesMessage,
    UserDataMessage,
)
from client_sdk.states import ClientState
from client_sdk.stats import Latency, Stats
from client_sdk.streams import MessageStream

__version__ = "0.1.0"

__all__ = [
    "AnyMessage",
    "AuthenticationError",
    "BackoffConfig",
    "BookMessage",
    "BotStatusMessage",
    "BufferFull",
    "Client",
    "ClientClosed",
    "ClientConfig",
    "ClientState",
    "ConnectionLost",
    "FeedState",
    "FloorcastError",
    "ForbiddenError",
    "Gap",
    "GapReason",
    "InvalidData",
    "Latency",
    "LimitExceeded",
    "Market",
    "MarketMessage",
    "MessageStream",
    "NotConnected",
    "OrderUpdateMessage",
    "Position",
    "PriceMessage",
    "ProtocolError",
    "PublishConflict",
    "RequestRefused",
    "RiskAlertMessage",
    "SendTimeout",
    "ServerUnavailable",
    "SessionError",
    "SessionMessage",
    "SessionSignal",
    "Stats",
    "Stream",
    "TokenUnavailable",
    "TopicError",
    "TradesMessage",
    "UserDataMessage",
]
