"""`client.market` and `client.session` for scripts: the same names, without await."""

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Literal, Self, TypeVar

from client_sdk.contract import FeedState, Position
from client_sdk.market.market import Market, OnStatus
from client_sdk.models import (
    AnyMessage,
    Attendance,
    Gap,
    PriceMessage,
    Sent,
    SessionEvent,
    SessionMessage,
    TradesMessage,
)
from client_sdk.reading.callbacks import OnItem
from client_sdk.sessions.session import Session
from client_sdk.sessions.sessions import Sessions
from client_sdk.streams import MessageStream
from client_sdk.sync.portal import Portal
from client_sdk.sync.streams import SyncBook, SyncCallback, SyncIterator, SyncStream

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class SyncMarket:
    """`client.market`."""

    def __init__(self, portal: Portal, market: Market) -> None:
        self._portal = portal
        self._market = market

    def prices(self, *symbols: str, interval_ms: int = 0) -> SyncStream[PriceMessage]:
        """The latest price of each symbol, whenever it changes; a slow reader skips old ones."""
        return self._open(lambda: self._market.prices(*symbols, interval_ms=interval_ms))

    def trades(self, *symbols: str) -> SyncStream[TradesMessage | Gap]:
        """Every trade, in order; a `Gap` where some could not be had."""
        return self._open(lambda: self._market.trades(*symbols))

    def stream(self, *topics: str, interval_ms: int = 0) -> SyncStream[AnyMessage | Gap]:
        """Any topics, each by the rules of its stream."""
        return self._open(lambda: self._market.stream(*topics, interval_ms=interval_ms))

    def on(self, topic: str, callback: OnItem, *, interval_ms: int = 0) -> SyncCallback:
        """Call a function for each item of a topic, one after the other."""
        portal, market = self._portal, self._market
        made = portal.run(lambda: market.on(topic, callback, interval_ms=interval_ms))
        return SyncCallback(portal, made)

    def book(self, symbol: str, *, interval_ms: int = 0) -> SyncBook:
        """An order book that keeps itself right."""
        made = self._portal.run(lambda: self._market.book(symbol, interval_ms=interval_ms))
        return SyncBook(self._portal, made)

    def status(self, topic: str) -> FeedState | None:
        """Whether the feed of a topic that is read here speaks; None where nobody can tell."""
        return self._portal.run(lambda: self._market.status(topic))

    def on_status(self, callback: OnStatus) -> Callable[[], None]:
        """Call this when a feed falls silent or speaks again; what it returns ends that."""
        end = self._portal.run(lambda: self._market.on_status(callback))
        return lambda: self._portal.run(end)

    def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        user: str | None = None,
        type: Literal["update", "snapshot"] = "update",  # noqa: A002
    ) -> Position:
        """Publish one message; its position once it is kept."""
        return self._portal.call(self._market.publish(topic, data, id=id, user=user, type=type))

    def _open(self, stream: Callable[[], MessageStream[ItemT]]) -> SyncStream[ItemT]:
        return SyncStream(self._portal, self._portal.run(stream))


class SyncSession:
    """Joined until it is left, or its `with` ends."""

    def __init__(self, portal: Portal, session: Session) -> None:
        self._portal = portal
        self._session = session
        self.id = session.id

    @property
    def metadata(self) -> Mapping[str, object]:
        """What the first to come said of it."""
        return self._session.metadata

    def messages(self, since: Position | None = None) -> SyncStream[SessionMessage | Gap]:
        """Every message since the session was joined, or since a position; in order."""
        return SyncStream(self._portal, self._portal.run(lambda: self._session.messages(since)))

    def on_message(self, callback: OnItem) -> SyncCallback:
        """Call a function for each message or gap, one after the other."""
        made = self._portal.run(lambda: self._session.on_message(callback))
        return SyncCallback(self._portal, made)

    def events(self) -> SyncIterator[SessionEvent]:
        """Who comes, who goes, and signals, from now on."""
        return SyncIterator(self._portal, self._portal.run(self._session.events))

    def on_event(self, callback: OnItem) -> SyncCallback:
        """Call a function for each of them."""
        made = self._portal.run(lambda: self._session.on_event(callback))
        return SyncCallback(self._portal, made)

    def send(self, data: Mapping[str, object], *, id: str | None = None) -> Sent:  # noqa: A002
        """Say something to everybody, oneself included; where it stands, once it is kept."""
        return self._portal.call(self._session.send(data, id=id))

    def signal(self, data: Mapping[str, object]) -> None:
        """Tell the others something that holds for a moment; raises where we are offline."""
        self._portal.call(self._session.signal(data))

    def participants(self) -> Attendance:
        """Who is here now."""
        return self._portal.call(self._session.participants())

    def history(
        self, *, before_seq: int | None = None, limit: int = 100
    ) -> tuple[SessionMessage, ...]:
        """The last messages, or those before one that is known."""
        return self._portal.call(self._session.history(before_seq=before_seq, limit=limit))

    def kick(self, user_id: str) -> int:
        """Send a user out, on every device; how many connections that were."""
        return self._portal.call(self._session.kick(user_id))

    def close(self) -> int:
        """End the session for everybody; how many connections that were."""
        return self._portal.call(self._session.close())

    def leave(self) -> None:
        """Go; the others see it at once."""
        self._portal.call(self._session.leave())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()


class SyncSessions:
    """`client.session`."""

    def __init__(self, portal: Portal, sessions: Sessions) -> None:
        self._portal = portal
        self._sessions = sessions

    def join(
        self,
        session_id: str,
        *,
        since: Position | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> SyncSession:
        """Come into a session; the first to come makes it, and may describe it."""
        joining = self._sessions.join(session_id, since=since, metadata=metadata)
        return SyncSession(self._portal, self._portal.call(_result(joining)))

    def on_notification(self, callback: OnItem) -> Callable[[], None]:
        """Call a function for each notification; what it returns ends that."""
        end = self._portal.run(lambda: self._sessions.on_notification(callback))
        return lambda: self._portal.run(end)


async def _result(awaitable: Awaitable[ResultT]) -> ResultT:
    return await awaitable
