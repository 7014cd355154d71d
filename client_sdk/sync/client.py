"""The client for scripts and notebooks: the same names, without await."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from client_sdk.client import Client
from client_sdk.config import ClientConfig
from client_sdk.connection.tokens import TokenSource
from client_sdk.errors import ClientClosed, NotConnected
from client_sdk.states import ClientState
from client_sdk.stats import Stats
from client_sdk.sync.parts import SyncMarket, SyncSessions
from client_sdk.sync.portal import Portal


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
        self._new_client = lambda: Client(url, token, config=config)
        self._portal: Portal | None = None
        self._client: Client | None = None

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
        """Where the connection stands."""
        return ClientState.IDLE if self._client is None else self._client.state

    def on_state(self, callback: Callable[[ClientState], None]) -> Callable[[], None]:
        """Call this at every change of the state; what it returns ends that."""
        portal, client = self._require_started()
        end = portal.run(lambda: client.on_state(callback))
        return lambda: portal.run(end)

    @property
    def stats(self) -> Stats:
        """What happened until now."""
        portal, client = self._require_started()
        return portal.run(lambda: client.stats)

    def start(self) -> Self:
        """Connect; raises where that fails for good, or takes too long."""
        if self._portal is not None:
            raise ClientClosed("a client is started once")
        portal = self._portal = Portal("floorcast-sync")
        try:
            self._client = portal.run(self._new_client)
            portal.call(self._client.start())
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End everything, the thread too."""
        if self._portal is None:
            return
        try:
            if self._client is not None:
                self._portal.call(self._client.close())
        except ClientClosed:
            # It was closed before.
            pass
        finally:
            self._portal.close()

    def _require_started(self) -> tuple[Portal, Client]:
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
