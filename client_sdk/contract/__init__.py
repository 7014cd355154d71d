"""The contract in Python: codes, names and models that server and SDK share."""

from client_sdk.contract.codes import ErrorCode
from client_sdk.contract.messages import (
    Body,
    ErrorBody,
    Goodbye,
    Message,
    PriceData,
    TokenExpiring,
    TopicReply,
    Welcome,
)
from client_sdk.contract.names import (
    INTERVALS_MS,
    MARKET_NAMESPACE,
    SESSION_ID_PATTERN,
    SESSION_NAMESPACE,
    SYMBOL_PATTERN,
    Scope,
    Stream,
    SubscriptionStatus,
)
from client_sdk.contract.requests import (
    ConnectAuth,
    ListSubscriptions,
    Position,
    RefreshToken,
    Request,
    Subscribe,
    Unsubscribe,
)

__all__ = [
    "INTERVALS_MS",
    "MARKET_NAMESPACE",
    "SESSION_ID_PATTERN",
    "SESSION_NAMESPACE",
    "SYMBOL_PATTERN",
    "Body",
    "ConnectAuth",
    "ErrorBody",
    "ErrorCode",
    "Goodbye",
    "ListSubscriptions",
    "Message",
    "Position",
    "PriceData",
    "RefreshToken",
    "Request",
    "Scope",
    "Stream",
    "Subscribe",
    "SubscriptionStatus",
    "TokenExpiring",
    "TopicReply",
    "Unsubscribe",
    "Welcome",
]
