"""Run a real server on a real port, inside the test's event loop."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from client_sdk.contract import Scope
from server.access import mint
from server.app import SERVER, create_app
from server.brokers import MemoryPresence
from server.core.sessions.registry import Sessions
from server.ports import Feed
from server.server import Server
from server.serving import open_listener, run_app
from server.settings import load_settings
from server.transport.polling import PollingCarrier
from tests.kit.clock import ManualClock
from tests.kit.patience import until

SECRET = "a secret for tests that is long enough to be one"
ALL_SCOPES = (Scope.MARKET_READ, Scope.MARKET_PUBLISH, Scope.SESSION_JOIN)
PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server, its address and its clock."""

    server: Server
    host: str
    port: int
    clock: ManualClock

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def sessions(self) -> Sessions:
        """The sessions of a server with the memory broker."""
        presence = self.server.backend.presence
        assert isinstance(presence, MemoryPresence)
        return presence.sessions

    def token(
        self,
        user: str = "ann",
        *,
        scopes: Iterable[Scope] = ALL_SCOPES,
        ttl_seconds: float = 3600,
        org: str = "default",
        symbols: list[str] | None = None,
        sessions: list[str] | None = None,
        users: list[str] | None = None,
        audience: str = "floorcast",
        secret: str = SECRET,
        token_id: str | None = None,
    ) -> str:
        """A token, valid unless an argument makes it invalid."""
        return mint(
            secret,
            subject=user,
            scopes=scopes,
            clock=self.clock,
            ttl_seconds=ttl_seconds,
            org=org,
            audience=audience,
            symbols=symbols,
            sessions=sessions,
            users=users,
            token_id=token_id,
        )

    def pass_time(self, seconds: float) -> None:
        """Advance the clock and run the server's timers."""
        self.clock.advance(seconds)
        self.server.tick()

    def residue(self) -> dict[str, int]:
        """How much the server holds for clients; all zero without clients."""
        server = self.server
        return {
            "sockets": server.sockets.connection_count,
            "registry": len(server.clients.registry),
            "clients": len(server.clients.context.clients()),
            "slots": server.clients.limits.open_count,
            "counted": server.clients.limits.tracked_count(),
            "subscriptions": len(server.market.subscriptions),
            # Without those that only keep candles.
            "channels": sum(
                not each.derived and not each.name.startswith("bars@")
                for each in server.delivery.hub.channels()
            ),
            "memberships": len(server.sessions.service.memberships),
            "links": server.delivery.hub.link_count,
            "tickets": len(server.market.tickets) + len(server.sessions.tickets),
            "senders": server.clients.context.event_limits.tracked_count(),
            "watched": server.sockets.eio.watched_count
            + server.clients.context.watched_token_count,
        }

    async def until_polled(self) -> None:
        """Wait until a client's poll request is waiting at the server."""
        await until(
            lambda: any(
                isinstance(each.carrier, PollingCarrier) and each.carrier.has_waiting_poll
                for each in self.server.sockets.connections()
            )
        )

    async def until_empty(self) -> None:
        """Wait until the server holds nothing for any client."""
        try:
            await until(lambda: not any(self.residue().values()))
        except TimeoutError:
            raise AssertionError(f"left behind: {self.residue()}") from None


@contextlib.asynccontextmanager
async def running(
    settings: Mapping[str, object] | None = None,
    *,
    feed: Feed | None = None,
    clock: ManualClock | None = None,
    **parts: Any,
) -> AsyncIterator[RunningServer]:
    """Run a server; settings are named as in a file: `limits.connections`.

    Other arguments are those of `create_app`.
    """
    clock = clock or ManualClock()
    flags = dict(settings or {})
    if not {"auth.public_key_file", "auth.jwks_url", "auth.secret"} & flags.keys():
        flags["auth.secret"] = SECRET
    flags.setdefault("server.port", 0)
    loaded = load_settings(flags=flags)
    app = create_app(loaded, clock=clock, feed=feed, **parts)
    async with run_app(app, loaded, open_listener(loaded)) as address:
        yield RunningServer(app[SERVER], "127.0.0.1", int(address.url.rpartition(":")[2]), clock)
