"""`SyncClient`: the client for scripts and notebooks, with the same names and without await."""

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from ssl import SSLContext
from types import TracebackType
from typing import Literal, Self, TypeVar

from client_sdk.client import Client, check_arguments
from client_sdk.config import ClientConfig
from client_sdk.connection.states import ClientState, OnState, with_reason
from client_sdk.connection.tokens import TokenSource
from client_sdk.contract import (
    AnyMessage,
    Bar,
    FeedState,
    Instrument,
    Position,
    PriceMessage,
    SessionMessage,
    TradesMessage,
)
from client_sdk.errors import ClientClosed, FloorcastError, NotConnected
from client_sdk.market.market import Market, OnStatus, Since
from client_sdk.reading.gaps import Gap
from client_sdk.reading.streams import MessageStream, OnItem
from client_sdk.sessions.session import AnySessionEvent, Attendance, Sent, Session
from client_sdk.sessions.sessions import Sessions
from client_sdk.stats import Stats
from client_sdk.sync.portal import Portal
from client_sdk.sync.streams import SyncBook, SyncCallback, SyncIterator, SyncStream, within

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class SyncMarket:
    """`client.market`."""

    def __init__(self, portal: Portal, market: Market) -> None:
        self._portal = portal
        self._market = market

    def prices(self, *symbols: str, interval_ms: int = 0) -> SyncStream[PriceMessage]:
        """Stream the latest price of each symbol; a slow reader skips older prices."""
        return self._open(lambda: self._market.prices(*symbols, interval_ms=interval_ms))

    def trades(
        self, *symbols: str, since: Since = None, last: int = 0
    ) -> SyncStream[TradesMessage | Gap]:
        """Stream every trade in order, with a `Gap` where some are lost.

        `since` is the position of the last message that was read before, one for each topic (as
        `checkpoint` returns them), or a time. `last` begins with so many kept messages instead.
        """
        return self._open(lambda: self._market.trades(*symbols, since=since, last=last))

    def stream(
        self, *topics: str, interval_ms: int = 0, since: Since = None, last: int = 0
    ) -> SyncStream[AnyMessage | Gap]:
        """Stream any topics or patterns, each by the rules of its stream; else as `trades`."""
        market = self._market
        return self._open(
            lambda: market.stream(*topics, interval_ms=interval_ms, since=since, last=last)
        )

    def on(
        self, topic: str, callback: OnItem, *, interval_ms: int = 0, since: Position | None = None
    ) -> SyncCallback:
        """Call a function for each item of a topic, one at a time."""
        portal, market = self._portal, self._market
        call = portal.callbacks.awaited(callback)
        callback_task = portal.run(
            lambda: market.on(topic, call, interval_ms=interval_ms, since=since)
        )
        return SyncCallback(portal, callback_task)

    def book(
        self,
        symbol: str,
        *,
        depth: int | None = None,
        step: str | Decimal | None = None,
        interval_ms: int = 0,
    ) -> SyncBook:
        """Keep a live order book: all of it, or so many levels of each side, grouped by `step`."""
        market = self._market
        live_book = self._portal.run(
            lambda: market.book(symbol, depth=depth, step=step, interval_ms=interval_ms)
        )
        return SyncBook(self._portal, live_book)

    def status(self, topic: str) -> FeedState | None:
        """The freshness of a topic's feed; None if it is unknown, or nobody reads the topic."""
        return self._portal.run(lambda: self._market.status(topic))

    def on_status(self, callback: OnStatus) -> Callable[[], None]:
        """Call a function on each change of a feed's freshness; call the result to stop."""
        call = self._portal.callbacks.posted(callback)
        remove = self._portal.run(lambda: self._market.on_status(call))
        return lambda: self._portal.run(remove)

    def instruments(self, *symbols: str, match: str = "*") -> tuple[Instrument, ...]:
        """All symbols that the server knows, or these, or those that match such as `BTC*`."""
        return self._portal.call(self._market.instruments(*symbols, match=match))

    def candles(
        self, symbol: str, interval: str = "1m", *, limit: int = 500, before: int | None = None
    ) -> tuple[Bar, ...]:
        """The newest bars of a symbol, oldest first, or those that begin before a time in ms."""
        candles = self._market.candles(symbol, interval, limit=limit, before=before)
        return self._portal.call(candles)

    def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        user: str | None = None,
        type: Literal["update", "snapshot"] = "update",  # noqa: A002
        source_ts: int | None = None,
        timeout: float | None = None,
    ) -> Position:
        """Publish one message and return its position.

        Raises `SendTimeout` without a reply within `timeout`, by default `send_seconds`.
        """
        publish = self._market.publish(
            topic, data, id=id, user=user, type=type, source_ts=source_ts, timeout=timeout
        )
        return self._portal.call(publish)

    def will(
        self,
        messages: Sequence[Mapping[str, object]] | None,
        *,
        after_ms: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Let the server publish messages once the last connection of this user is gone.

        Each message is `{"topic", "data", "id"?, "user"?, "type"?}`. They are published after the
        user has been without a connection for `after_ms`; None takes them back.
        """
        self._portal.call(self._market.will(messages, after_ms=after_ms, timeout=timeout))

    def _open(self, stream: Callable[[], MessageStream[ItemT]]) -> SyncStream[ItemT]:
        return SyncStream(self._portal, self._portal.run(stream))


class SyncSession:
    """Joined until `leave`, or the end of its `with`."""

    def __init__(self, portal: Portal, session: Session) -> None:
        self._portal = portal
        self._session = session
        self.id = session.id

    @property
    def metadata(self) -> Mapping[str, object]:
        """The description given by its creator."""
        return self._session.metadata

    def messages(self, since: Position | None = None) -> SyncStream[SessionMessage | Gap]:
        """Stream every message in order, since the session was joined or since a position."""
        return SyncStream(self._portal, self._portal.run(lambda: self._session.messages(since)))

    def on_message(self, callback: OnItem) -> SyncCallback:
        """Call a function for each message or gap, one at a time."""
        call = self._portal.callbacks.awaited(callback)
        callback_task = self._portal.run(lambda: self._session.on_message(call))
        return SyncCallback(self._portal, callback_task)

    def events(self) -> SyncIterator[AnySessionEvent]:
        """Stream joins, leaves and signals from now on."""
        return SyncIterator(self._portal, self._portal.run(self._session.events))

    def on_event(self, callback: OnItem) -> SyncCallback:
        """Call a function for each event."""
        call = self._portal.callbacks.awaited(callback)
        callback_task = self._portal.run(lambda: self._session.on_event(call))
        return SyncCallback(self._portal, callback_task)

    def send(
        self,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> Sent:
        """Send a message to everybody, this client included; returns its position.

        Raises `SendTimeout` without a reply within `timeout`, by default `send_seconds`.
        """
        return self._portal.call(self._session.send(data, id=id, timeout=timeout))

    def signal(self, data: Mapping[str, object]) -> None:
        """Send a transient event to the other participants; raises `NotConnected` if offline."""
        self._portal.call(self._session.signal(data))

    def participants(self) -> Attendance:
        """The users in the session now."""
        return self._portal.call(self._session.participants())

    def history(
        self, *, before_seq: int | None = None, limit: int = 100
    ) -> tuple[SessionMessage, ...]:
        """The newest messages, or those before `before_seq`."""
        return self._portal.call(self._session.history(before_seq=before_seq, limit=limit))

    def kick(self, user_id: str) -> int:
        """Remove a user on every device; returns the number of removed connections."""
        return self._portal.call(self._session.kick(user_id))

    def end(self) -> int:
        """End the session for everybody; returns the number of removed connections."""
        return self._portal.call(self._session.end())

    def close(self) -> int:
        """The former name of `end`."""
        return self._portal.call(self._session.close())

    def leave(self) -> None:
        """Leave the session; the others see it at once."""
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
        """Join a session, creating it if needed; `metadata` describes a new session."""
        join = self._sessions.join(session_id, since=since, metadata=metadata)
        return SyncSession(self._portal, self._portal.call(_result(join)))

    def on_notification(self, callback: OnItem) -> Callable[[], None]:
        """Call a function for each notification; call the result to stop."""
        call = self._portal.callbacks.awaited(callback)
        remove = self._portal.run(lambda: self._sessions.on_notification(call))
        return lambda: self._portal.run(remove)


class SyncClient:
    """Connects on `with`, and reconnects by itself until the block ends.

        with SyncClient("http://localhost:8000", token=get_token) as client:
            for tick in client.market.prices("BTCUSDT", "ETHUSDT"):
                print(tick.symbol, tick.data.last)

    In a notebook, where a block ends with its cell, use `start()` and `close()`. The client runs
    in a thread of its own, and callbacks in another, one at a time: they may block, publish and
    close the client. A client that is dropped without `close()` ends with a `ResourceWarning`.
    """

    def __init__(
        self,
        url: str,
        token: TokenSource = None,
        *,
        config: ClientConfig | None = None,
        proxy: str | None = None,
        ssl: SSLContext | bool = True,
        headers: Mapping[str, str] | None = None,
        trust_env: bool = False,
    ) -> None:
        check_arguments(url, token, config)
        self._url = url
        self._new_client = partial(
            Client,
            url,
            token,
            config=config,
            proxy=proxy,
            ssl=ssl,
            headers=headers,
            trust_env=trust_env,
        )
        self._portal: Portal | None = None
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"<SyncClient of {self._url}>"

    @property
    def market(self) -> SyncMarket:
        """Prices, trades, books, any topic; publishing."""
        portal, client = self._require_started()
        return SyncMarket(portal, client.market)

    @property
    def session(self) -> SyncSessions:
        """Sessions, and notifications."""
        portal, client = self._require_started()
        return SyncSessions(portal, client.session)

    @property
    def state(self) -> ClientState:
        """The state of the connection."""
        return ClientState.IDLE if self._client is None else self._client.state

    @property
    def error(self) -> FloorcastError | None:
        """Why the client is offline or was closed by an error; None otherwise."""
        return None if self._client is None else self._client.error

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the client has ended; raises the error that ended it, if any.

        Raises `TimeoutError` after `timeout` seconds.
        """
        portal, client = self._require_started()
        with contextlib.suppress(ClientClosed):
            portal.call(within(timeout, client.wait_closed()))

    def on_state(self, callback: OnState) -> Callable[[], None]:
        """Call a function on each change of state; call the result to stop.

        It gets the state and, if it takes two arguments, the reason: `error` at that moment.
        """
        portal, client = self._require_started()
        call = portal.callbacks.posted(with_reason(callback))
        remove = portal.run(lambda: client.on_state(call))
        return lambda: portal.run(remove)

    @property
    def stats(self) -> Stats:
        """The client's counters."""
        portal, client = self._require_started()
        return portal.run(lambda: client.stats)

    def start(self) -> Self:
        """Connect; raises if that fails for good, or takes longer than `start_seconds`."""
        if self._portal is not None:
            raise ClientClosed("the client was started already: create a new one")
        portal = self._portal = Portal("floorcast-sync", repr(self))
        try:
            client = self._client = portal.run(self._new_client)
            portal.set_cleanup(client.close)
            portal.call(client.start())
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the connection, all tasks and the thread; no-op if not started."""
        if self._portal is None:
            return
        try:
            if self._client is not None:
                self._portal.call(self._client.close())
        except ClientClosed:
            # Closed already.
            pass
        finally:
            self._portal.close()

    def _require_started(self) -> tuple[Portal, Client]:
        if self._portal is None or self._client is None:
            raise NotConnected("the client is not started: call start() or use `with`")
        return self._portal, self._client

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


async def _result(awaitable: Awaitable[ResultT]) -> ResultT:
    return await awaitable
