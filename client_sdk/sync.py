"""The client for scripts and notebooks: the same names, without await."""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Generic, Literal, Self, TypeVar

from client_sdk.client import Client
from client_sdk.config import ClientConfig
from client_sdk.contract import Position
from client_sdk.errors import ClientClosed, NotConnected
from client_sdk.market import Market
from client_sdk.models import AnyMessage, Gap, PriceMessage, TradesMessage
from client_sdk.portal import Portal
from client_sdk.states import ClientState
from client_sdk.stats import Stats
from client_sdk.streams import MessageStream
from client_sdk.tokens import TokenSource

ItemT = TypeVar("ItemT")


class SyncStream(Generic[ItemT]):
    """An iterator; leaving it, closing it or dropping it ends its subscription."""

    def __init__(self, portal: Portal, stream: MessageStream[ItemT]) -> None:
        self._portal = portal
        self._stream = stream

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ItemT:
        try:
            return self._portal.call(self._stream.__anext__())
        except (StopAsyncIteration, ClientClosed):
            raise StopIteration from None

    def position(self, topic: str) -> Position | None:
        """How far this stream has come in a topic or session, with what waits to be read."""
        return self._portal.do(lambda: self._stream.position(topic))

    def ready(self) -> None:
        """Wait until the server has answered for every topic; raises where it refused one."""
        self._portal.call(self._stream.ready())

    def close(self) -> None:
        """End it; what was not read is dropped."""
        self._portal.do(self._stream.close)

    def __enter__(self) -> Self:
        self.ready()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class SyncMarket:
    """`client.market`, without await."""

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
        return SyncStream(self._portal, self._portal.do(stream))


class SyncClient:
    """Connects on `with`, and comes back by itself until the block ends.

        with SyncClient("http://localhost:8000", token=get_token) as client:
            for tick in client.market.prices("BTCUSDT", "ETHUSDT"):
                print(tick.symbol, tick.data.last)

    In a notebook, where a block ends with its cell: `start()` and `close()`. It lives in a thread
    of its own, and so do callbacks: those must not wait for the client.
    """

    def __init__(
        self, url: str, token: TokenSource = None, *, config: ClientConfig | None = None
    ) -> None:
        self._make = lambda: Client(url, token, config=config)
        self._portal: Portal | None = None
        self._client: Client | None = None

    @property
    def market(self) -> SyncMarket:
        """Prices, trades, books, any topic; publishing."""
        portal, client = self._started()
        return SyncMarket(portal, client.market)

    @property
    def state(self) -> ClientState:
        """Where the connection stands."""
        return ClientState.IDLE if self._client is None else self._client.state

    def on_state(self, callback: Callable[[ClientState], None]) -> Callable[[], None]:
        """Call this at every change of the state; what it returns ends that."""
        portal, client = self._started()
        end = portal.do(lambda: client.on_state(callback))
        return lambda: portal.do(end)

    @property
    def stats(self) -> Stats:
        """What happened until now."""
        portal, client = self._started()
        return portal.do(lambda: client.stats)

    def start(self) -> Self:
        """Connect; raises where that fails for good, or takes too long."""
        if self._portal is not None:
            raise ClientClosed("a client is started once")
        portal = self._portal = Portal("floorcast-sync")
        try:
            self._client = portal.do(self._make)
            portal.call(self._client.start())
        except BaseException:
            portal.close()
            raise
        return self

    def close(self) -> None:
        """End everything, the thread too."""
        if self._portal is None or self._client is None:
            return
        try:
            self._portal.call(self._client.close())
        except ClientClosed:
            # It was closed before.
            pass
        finally:
            self._portal.close()

    def _started(self) -> tuple[Portal, Client]:
        if self._portal is None or self._client is None:
            raise NotConnected("start the client first, or use it in a `with`")
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
