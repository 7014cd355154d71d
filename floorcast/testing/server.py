"""A server in memory, for tests of code that uses the Python client."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from client_sdk.contract import Scope
from server.access import mint, new_secret
from server.app import SERVER, create_app
from server.core.log.entries import Position
from server.feeds import ReplayFeed
from server.ports import FeedOptions
from server.server import Server, SystemClock
from server.services import FeedPublisher
from server.serving import open_listener, run_app
from server.settings import load_settings

_ALL_SCOPES = (
    Scope.MARKET_READ,
    Scope.MARKET_PUBLISH,
    Scope.SESSION_JOIN,
    Scope.SESSION_MODERATE,
    Scope.ADMIN,
)


@dataclass(frozen=True, slots=True)
class FakeServer:
    """A real server on a free local port, that a test controls; `fake_server` runs it."""

    url: str
    _server: Server
    _secret: str

    def token(
        self,
        user: str = "ann",
        *,
        scopes: Iterable[Scope] = _ALL_SCOPES,
        org: str = "default",
        ttl_seconds: float = 3600,
    ) -> str:
        """A token that the server accepts; with all scopes by default."""
        return mint(
            self._secret,
            subject=user,
            scopes=scopes,
            clock=SystemClock(),
            ttl_seconds=ttl_seconds,
            org=org,
        )

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
    ) -> Position:
        """Publish one message; `user` and `org` name the owner of a private topic."""
        publishing = self._server.market.publishing
        return await publishing.publish(topic, data, kind=kind, user=user, org=org)

    async def replay(self, recording: str | Path, *, speed: float = 0) -> None:
        """Publish a recorded stream, to its end; speed 1 is as recorded, 0 without pauses."""
        options = FeedOptions(SystemClock(), argument=str(recording), speed=speed)
        market = self._server.market
        await ReplayFeed(options).run(FeedPublisher(market.publishing, "", market.instruments))

    def cut_connections(self) -> None:
        """Cut off every client, as a network failure does; they may come back at once."""
        for connection in self._server.sockets.connections():
            connection.abort("cut by the test")

    async def wait_for_clients(self, count: int) -> None:
        """Wait until so many clients have joined a namespace."""
        while len(self._server.clients.registry) != count:
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def fake_server(settings: Mapping[str, object] | None = None) -> AsyncIterator[FakeServer]:
    """Run a server in this event loop, everything in memory, until the block ends.

    Settings are named as in a file: `{"limits.topics_per_connection": 5}`. Example:

        async with fake_server() as server:
            async with Client(server.url, token=server.token()) as client:
                prices = client.market.prices("BTCUSDT")
                await server.replay(RECORDED_MARKET)
    """
    secret = new_secret()
    loaded = load_settings(flags={"server.port": 0, **(settings or {}), "auth.secret": secret})
    app = create_app(loaded)
    async with run_app(app, loaded, open_listener(loaded)) as endpoint:
        yield FakeServer(endpoint.url, app[SERVER], secret)
