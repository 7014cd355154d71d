"""The client: one connection to a Floorcast server, for market data and sessions."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from ssl import SSLContext
from types import TracebackType
from typing import Self

import aiohttp

from client_sdk.config import ClientConfig, HttpOptions, server_url
from client_sdk.connection.backoff import Backoff
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.states import ClientState, OnState
from client_sdk.connection.supervisor import Supervisor
from client_sdk.connection.tokens import TokenFetcher, TokenSource, check_source
from client_sdk.connection.websocket import Connection, OnPacket
from client_sdk.contract import MARKET_NAMESPACE, SESSION_NAMESPACE
from client_sdk.errors import ClientClosed, ConfigError, FloorcastError, ServerUnavailable
from client_sdk.market.market import Market
from client_sdk.sessions.sessions import Sessions
from client_sdk.stats import Counters, Stats

# A server that starts later than its client is found while `start_seconds` lasts: at least so
# many attempts fall into it.
_START_ATTEMPTS = 5


def check_arguments(url: str, token: TokenSource, config: ClientConfig | None) -> None:
    """Raise `ConfigError` if a client cannot be made of these."""
    server_url(url)
    check_source(token)
    kind: type = type(config)
    if config is not None and kind is not ClientConfig:
        raise ConfigError(f"config must be a ClientConfig, not {kind.__name__}")


class Client:
    """Connects on `async with`, and reconnects by itself until the block ends.

        async with Client("http://localhost:8000", token=get_token) as client:
            async for tick in client.market.prices("BTCUSDT", "ETHUSDT"):
                print(tick.symbol, tick.data.last)

    `client.market` reads and publishes market data: `prices`, `trades`, `book`, `stream`, `on`,
    `publish`. `client.session` joins sessions: `join`, `on_notification`.

    `token` is a string, or a function, plain or async, that returns one. A function is called for
    each connection, so that it can return a fresh token. `proxy` is the URL of an HTTP proxy, `ssl`
    an `ssl.SSLContext` (False checks no certificate), `headers` are sent with each connection, and
    `trust_env` takes the proxy from the environment. Raises `ConfigError` for a wrong argument.
    """

    market: Market
    session: Sessions

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
        self._url = server_url(url)
        self._config = config or ClientConfig()
        self._options = HttpOptions(proxy, ssl, dict(headers or {}), trust_env)
        self._http: aiohttp.ClientSession | None = None
        self._counters = Counters()
        self._clock = ServerClock()
        self._supervisor = Supervisor(
            self._connect,
            TokenFetcher(token, self._config.token_seconds),
            Backoff(
                self._config.backoff,
                random.random,
                start_seconds=self._config.start_seconds / _START_ATTEMPTS,
            ),
            self._clock,
            self._counters,
        )
        market = self._supervisor.namespace(MARKET_NAMESPACE)
        self.market = Market(market, self._config, self._counters, self._clock)
        session = self._supervisor.namespace(SESSION_NAMESPACE)
        self.session = Sessions(session, self._config, self._counters, self._clock)
        # The server authenticates in a namespace, so the client always joins one; the other
        # is joined on first use.
        market.request_join()

    @property
    def state(self) -> ClientState:
        """The state of the connection."""
        return self._supervisor.state.current

    @property
    def error(self) -> FloorcastError | None:
        """Why the client is offline or was closed by an error; None otherwise."""
        return self._supervisor.state.reason

    def on_state(self, callback: OnState) -> Callable[[], None]:
        """Call a plain function on each change of state; call the returned function to stop.

        It gets the state and, if it takes two arguments, the reason: `error` at that moment.
        """
        return self._supervisor.state.add_callback(callback)

    @property
    def stats(self) -> Stats:
        """The client's counters."""
        return self._counters.snapshot(self._clock.offset_ms)

    async def start(self) -> None:
        """Connect; raises if that fails for good, or takes longer than `start_seconds`."""
        if self._http is not None:
            raise ClientClosed("the client was started already: create a new one")
        self._http = aiohttp.ClientSession(trust_env=self._options.trust_env)
        self._supervisor.start()
        try:
            async with asyncio.timeout(self._config.start_seconds):
                await self._supervisor.online.wait_open()
        except TimeoutError:
            cause = self.error
            await self.close()
            why = "" if cause is None else f": {cause.message}"
            raise ServerUnavailable(
                f"no connection within {self._config.start_seconds:g} s{why}"
            ) from cause
        except BaseException:
            await self.close()
            raise

    async def wait_closed(self) -> None:
        """Wait until the client has ended; raises the error that ended it, if any."""
        await self._supervisor.closed.wait()
        if self.error is not None:
            raise self.error.clone()

    async def close(self) -> None:
        """End the connection and all tasks: iterators end, pending calls raise `ClientClosed`."""
        # The stack runs all of it, even if this call is cancelled halfway.
        async with contextlib.AsyncExitStack() as stack:
            if self._http is not None:
                stack.push_async_callback(self._http.close)
            stack.push_async_callback(self._supervisor.close)
            stack.push_async_callback(self.session.close)
            stack.push_async_callback(self.market.close)

    async def _connect(self, on_packet: OnPacket) -> Connection:
        assert self._http is not None
        return await Connection.open(self._http, self._url, on_packet, self._config, self._options)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
