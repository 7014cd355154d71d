"""Every event of both namespaces: who sends it, its payload and its reply."""

from dataclasses import dataclass

from pydantic import BaseModel

from client_sdk.contract.messages import (
    MESSAGE_MODELS,
    SESSION_EVENT_MODELS,
    ErrorBody,
    Goodbye,
    Heartbeat,
    Instrument,
    Notification,
    ReconnectHint,
    SessionClosed,
    SessionMessage,
    Status,
    TokenExpiring,
    Welcome,
)
from client_sdk.contract.names import MARKET_NAMESPACE, SESSION_NAMESPACE
from client_sdk.contract.replies import (
    CandlesReply,
    HistoryReply,
    InstrumentsReply,
    JoinReply,
    ModerationReply,
    ParticipantsReply,
    PublishReply,
    RefreshReply,
    Reply,
    SendReply,
    SubscribeReply,
    UnsubscribeReply,
)
from client_sdk.contract.requests import (
    CloseSession,
    FetchCandles,
    FetchHistory,
    Join,
    Kick,
    Leave,
    ListInstruments,
    ListParticipants,
    ListSubscriptions,
    Publish,
    RefreshToken,
    Send,
    Signal,
    Subscribe,
    Unsubscribe,
    WillRequest,
)


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """An event that a client sends; the server acknowledges each with its reply."""

    name: str
    payload: type[BaseModel]
    reply: type[Reply]


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """An event that the server sends; its payload is one of the models.

    If `acknowledged`, it may ask the client for an acknowledgement without a payload.
    """

    name: str
    payloads: tuple[type[BaseModel], ...]
    acknowledged: bool = False


@dataclass(frozen=True, slots=True)
class NamespaceEvents:
    """The events of one namespace."""

    namespace: str
    from_client: tuple[ClientEvent, ...]
    to_client: tuple[ServerEvent, ...]


_FROM_ANY_CLIENT = (ClientEvent("refresh_token", RefreshToken, RefreshReply),)
_TO_ANY_CLIENT = (
    ServerEvent("welcome", (Welcome,)),
    ServerEvent("token_expiring", (TokenExpiring,)),
    ServerEvent("reconnect_hint", (ReconnectHint,)),
    ServerEvent("goodbye", (Goodbye,)),
    ServerEvent("error", (ErrorBody,)),
)

MARKET_EVENTS = NamespaceEvents(
    MARKET_NAMESPACE,
    (
        *_FROM_ANY_CLIENT,
        ClientEvent("subscribe", Subscribe, SubscribeReply),
        ClientEvent("unsubscribe", Unsubscribe, UnsubscribeReply),
        ClientEvent("subscriptions", ListSubscriptions, SubscribeReply),
        ClientEvent("publish", Publish, PublishReply),
        ClientEvent("instruments", ListInstruments, InstrumentsReply),
        ClientEvent("candles", FetchCandles, CandlesReply),
        ClientEvent("will", WillRequest, Reply),
    ),
    (
        *_TO_ANY_CLIENT,
        *(ServerEvent(name, (model, Heartbeat)) for name, model in MESSAGE_MODELS.items()),
        ServerEvent("status", (Status,)),
        ServerEvent("instrument", (Instrument,)),
    ),
)

SESSION_EVENTS = NamespaceEvents(
    SESSION_NAMESPACE,
    (
        *_FROM_ANY_CLIENT,
        ClientEvent("join", Join, JoinReply),
        ClientEvent("leave", Leave, Reply),
        ClientEvent("send", Send, SendReply),
        ClientEvent("signal", Signal, Reply),
        ClientEvent("history", FetchHistory, HistoryReply),
        ClientEvent("participants", ListParticipants, ParticipantsReply),
        ClientEvent("kick", Kick, ModerationReply),
        ClientEvent("close", CloseSession, ModerationReply),
    ),
    (
        *_TO_ANY_CLIENT,
        ServerEvent("message", (SessionMessage,)),
        *(ServerEvent(name, (model,)) for name, model in SESSION_EVENT_MODELS.items()),
        ServerEvent("session_closed", (SessionClosed,)),
        ServerEvent("notification", (Notification,), acknowledged=True),
    ),
)

EVENTS = (MARKET_EVENTS, SESSION_EVENTS)
