"""When the supervisor reconnects and renews tokens, in virtual time."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from client_sdk import (
    BackoffConfig,
    Client,
    ClientState,
    ConnectionLost,
    FloorcastError,
    LimitExceeded,
    ServerUnavailable,
)
from client_sdk.connection.backoff import Backoff
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.packets import Packet, PacketType
from client_sdk.connection.supervisor import Supervisor
from client_sdk.connection.tokens import TokenFetcher, TokenSource
from client_sdk.connection.websocket import Connection, OnPacket
from client_sdk.stats import Counters
from server.sockets.context import reconnect_spread_ms
from tests.kit.virtual_loop import run


async def do_nothing() -> None:
    """Return at once."""


def welcome(spread_ms: int | None) -> str:
    """The body of a `welcome` event."""
    return json.dumps(
        {
            "connection_id": "c",
            "user_id": "ann",
            "org": "default",
            "server_time": 0,
            "ping_interval_ms": 25_000,
            "resume_window_ms": 0,
            "reconnect_spread_ms": spread_ms,
        }
    )


class FakeConnection:
    """A connection that accepts every join, and ends when the test ends it."""

    def __init__(self, on_packet: OnPacket, spread_ms: int | None) -> None:
        self._on_packet = on_packet
        self._spread_ms = spread_ms
        self.close_reason: FloorcastError | None = None
        self.is_unresponsive = False
        # The time and namespace of each renewal, and how many renewals to refuse first.
        self.renewed: list[tuple[float, str]] = []
        self.refusals: dict[str, int] = {}
        # Called before the reply to a renewal arrives.
        self.on_renewed: Callable[[], Awaitable[None]] = do_nothing
        self._on_end: Callable[[], None] = lambda: None

    async def join(self, namespace: str, auth: object) -> None:
        await asyncio.sleep(0)
        packet = Packet(PacketType.EVENT, namespace, None, "welcome", welcome(self._spread_ms))
        self._on_packet(cast(Connection, self), packet)

    def join_elapsed_seconds(self, namespace: str) -> float:
        return 0.0

    async def leave(self, namespace: str) -> None:
        if self.is_unresponsive:
            raise TimeoutError

    async def close(self) -> None:
        await asyncio.sleep(0)

    async def request(self, namespace: str, event: str, body: str, parse: object) -> None:
        assert event == "refresh_token"
        if self.refusals.get(namespace, 0):
            self.refusals[namespace] -= 1
            raise LimitExceeded("refused by a test", code="limit.rate")
        self.renewed.append((asyncio.get_running_loop().time(), namespace))
        await self.on_renewed()

    def on_end(self, callback: Callable[[], None]) -> None:
        self._on_end = callback

    def end(self) -> None:
        self.close_reason = ConnectionLost("cut by a test")
        self._on_end()


class Network:
    """One server for many clients; records the time of each connection attempt."""

    def __init__(self, *, names_spread: bool = True) -> None:
        self.is_up = True
        self._names_spread = names_spread
        self.attempts: list[float] = []
        self.connections: list[FakeConnection] = []

    async def connect(self, on_packet: OnPacket) -> Connection:
        self.attempts.append(asyncio.get_running_loop().time())
        if not self.is_up:
            raise ServerUnavailable("down by a test")
        spread_ms = reconnect_spread_ms(len(self.connections)) if self._names_spread else None
        self.connections.append(FakeConnection(on_packet, spread_ms))
        self.on_packet = on_packet
        return cast(Connection, self.connections[-1])

    def send_token_expiring(self, *namespaces: str) -> None:
        """Announce that the tokens of these namespaces expire in half a minute."""
        for name in namespaces:
            body = '{"expires_in_ms":30000}'
            packet = Packet(PacketType.EVENT, name, None, "token_expiring", body)
            self.on_packet(cast(Connection, self.connections[-1]), packet)

    def drop_connections(self) -> None:
        """Drop all connections at once."""
        wires, self.connections = self.connections, []
        self.attempts.clear()
        for wire in wires:
            wire.end()


def supervisor(
    network: Network, draw: Callable[[], float], source: TokenSource = "x", *namespaces: str
) -> Supervisor:
    backoff = Backoff(BackoffConfig(), draw)
    new = Supervisor(network.connect, TokenFetcher(source, 1.0), backoff, ServerClock(), Counters())
    for name in namespaces or ("/market",):
        new.namespace(name).request_join()
    new.start()
    return new


def most_in_a_window(moments: list[float], seconds: float) -> int:
    """The maximum number of attempts in any window of this length."""
    moments = sorted(moments)
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("names_spread", [True, False], ids=["spread", "older server"])
@pytest.mark.parametrize(
    ("client_count", "down_seconds"), [(500, 0.0), (500, 3.0), (500, 60.0), (5000, 0.0)]
)
def test_reconnects_of_many_clients_are_spread(
    client_count: int, down_seconds: float, names_spread: bool
) -> None:
    async def scenario() -> None:
        network = Network(names_spread=names_spread)
        clients = [supervisor(network, random.Random(seed).random) for seed in range(client_count)]
        await asyncio.gather(*(each.online.wait_open() for each in clients))
        network.is_up = down_seconds == 0
        network.drop_connections()
        await asyncio.sleep(down_seconds)
        network.is_up = True
        await asyncio.gather(*(each.online.wait_open() for each in clients))
        # Either is fine: few attempts a second, or a small share of the clients.
        assert most_in_a_window(network.attempts, 0.1) <= max(client_count * 0.05, 200)
        assert Counter(each.state.current for each in clients) == {ClientState.ONLINE: client_count}
        await asyncio.gather(*(each.close() for each in clients))

    run(scenario())


def test_failed_leave_does_not_block_close() -> None:
    async def scenario() -> None:
        network = Network()
        client = supervisor(network, lambda: 1.0)
        await client.online.wait_open()
        network.connections[0].is_unresponsive = True
        await client.close()
        assert client.state.current is ClientState.CLOSED

    run(scenario())


def test_short_connections_lengthen_the_delay() -> None:
    async def scenario() -> None:
        network = Network()
        client = supervisor(network, lambda: 1.0)
        delays = []
        for uptime_seconds in (0.9, 0.1, 0.1, 1.0, 0.1):
            await client.online.wait_open()
            await asyncio.sleep(uptime_seconds)
            lost_at = asyncio.get_running_loop().time()
            network.drop_connections()
            await asyncio.sleep(0)
            await client.online.wait_open()
            delays.append(round(network.attempts[0] - lost_at, 6))
        # A connection that lasts a second resets the delay.
        assert delays == [0.5, 1.0, 2.0, 0.5, 1.0]
        await client.close()

    run(scenario())


class VirtualClient(Client):
    """A client in this network instead of the real one."""

    def __init__(self, network: Network) -> None:
        super().__init__("http://virtual", "x")
        self._network = network

    async def _connect(self, on_packet: OnPacket) -> Connection:
        return await self._network.connect(on_packet)


@pytest.mark.parametrize("late_seconds", [1.0, 5.0, 11.0])
def test_start_finds_a_server_that_starts_later(late_seconds: float) -> None:
    async def scenario() -> None:
        network = Network()
        network.is_up = False
        clients = [VirtualClient(network) for _ in range(200)]
        starts = [asyncio.ensure_future(each.start()) for each in clients]
        await asyncio.sleep(late_seconds)
        network.is_up = True
        await asyncio.gather(*starts)
        await asyncio.gather(*(each.close() for each in clients))

    run(scenario())


class TokenService:
    """A token source that can be down; records when it is called, from `start_recording` on."""

    def __init__(self) -> None:
        self.is_down = False
        self.started_at = 0.0
        self.requested_at: list[float] = []

    def start_recording(self) -> None:
        self.started_at = asyncio.get_running_loop().time()
        self.requested_at.clear()

    async def fetch(self) -> str:
        self.requested_at.append(round(asyncio.get_running_loop().time() - self.started_at, 6))
        if self.is_down:
            raise OSError("the token service is down")
        return "token"


def test_failed_token_renewal_is_retried_until_it_succeeds() -> None:
    async def scenario() -> None:
        network, service = Network(), TokenService()
        client = supervisor(network, lambda: 1.0, service.fetch)
        await client.online.wait_open()
        service.start_recording()
        service.is_down = True
        network.send_token_expiring("/market")
        await asyncio.sleep(6.0)
        service.is_down = False
        await asyncio.sleep(60.0)
        assert service.requested_at == [0.0, 1.0, 3.0, 7.0], "no attempt after the success"
        assert [name for _, name in network.connections[0].renewed] == ["/market"]
        assert len(network.attempts) == 1
        await client.close()

    run(scenario())


def test_expired_token_is_not_renewed_but_fetched_on_reconnect() -> None:
    async def scenario() -> None:
        network, service = Network(), TokenService()
        client = supervisor(network, lambda: 1.0, service.fetch)
        await client.online.wait_open()
        service.start_recording()
        service.is_down = True
        network.send_token_expiring("/market")
        await asyncio.sleep(40.0)
        assert service.requested_at == [0.0, 1.0, 3.0, 7.0, 15.0, 23.0]
        service.is_down = False
        network.drop_connections()
        await asyncio.sleep(0)
        await client.online.wait_open()
        network.send_token_expiring("/market")
        await asyncio.sleep(1.0)
        assert [name for _, name in network.connections[0].renewed] == ["/market"]
        await client.close()

    run(scenario())


def test_renewal_retries_only_the_namespace_that_failed() -> None:
    async def scenario() -> None:
        network, service = Network(), TokenService()
        client = supervisor(network, lambda: 1.0, service.fetch, "/market", "/session")
        await client.online.wait_open()
        await asyncio.sleep(1.0)
        wire = network.connections[0]
        wire.refusals["/session"] = 2
        service.start_recording()
        network.send_token_expiring("/market", "/session")
        await asyncio.sleep(60.0)
        renewed = [(moment - service.started_at, name) for moment, name in wire.renewed]
        assert renewed == [(0.0, "/market"), (3.0, "/session")]
        assert service.requested_at == [0.0, 1.0, 3.0], "one fresh token for each attempt"
        await client.close()

    run(scenario())


def test_token_that_expires_before_its_reply_arrives_is_renewed_again() -> None:
    async def scenario() -> None:
        network, service = Network(), TokenService()
        client = supervisor(network, lambda: 1.0, service.fetch)
        await client.online.wait_open()
        wire = network.connections[0]

        async def expire_once() -> None:
            wire.on_renewed = do_nothing
            await asyncio.sleep(0.01)
            network.send_token_expiring("/market")

        wire.on_renewed = expire_once
        await asyncio.sleep(1.0)
        network.send_token_expiring("/market")
        await asyncio.sleep(1.0)
        assert [name for _, name in wire.renewed] == ["/market", "/market"]
        await client.close()

    run(scenario())


def test_string_token_is_not_renewed() -> None:
    async def scenario() -> None:
        network = Network()
        client = supervisor(network, lambda: 1.0, "x")
        await client.online.wait_open()
        network.send_token_expiring("/market")
        await asyncio.sleep(60.0)
        assert network.connections[0].renewed == []
        await client.close()

    run(scenario())
