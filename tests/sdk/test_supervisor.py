"""When a client comes back: by the supervisor itself, in virtual time."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import cast

from client_sdk import BackoffConfig, ClientState, ConnectionLost, FloorcastError, ServerUnavailable
from client_sdk.backoff import Backoff
from client_sdk.clock import ServerClock
from client_sdk.stats import Counters
from client_sdk.supervisor import Supervisor
from client_sdk.tokens import Tokens
from client_sdk.wire import OnPacket, Wire
from tests.sdk.virtual import run

CLIENTS = 500


class FakeWire:
    """A connection that admits at once, and ends when the test says so."""

    def __init__(self) -> None:
        self.ended: FloorcastError | None = None
        self.deaf = False
        self._on_end: Callable[[], None] = lambda: None

    async def join(self, namespace: str, auth: object) -> None:
        await asyncio.sleep(0)

    async def leave(self, namespace: str) -> None:
        if self.deaf:
            raise TimeoutError

    async def close(self) -> None:
        await asyncio.sleep(0)

    def when_ended(self, callback: Callable[[], None]) -> None:
        self._on_end = callback

    def end(self) -> None:
        self.ended = ConnectionLost("the server is gone")
        self._on_end()


class Network:
    """One server for many clients; says when each tried to come."""

    def __init__(self) -> None:
        self.up = True
        self.attempts: list[float] = []
        self.wires: list[FakeWire] = []

    async def connect(self, on_packet: OnPacket) -> Wire:
        self.attempts.append(asyncio.get_running_loop().time())
        if not self.up:
            raise ServerUnavailable("nobody listens")
        self.wires.append(FakeWire())
        return cast(Wire, self.wires[-1])

    def lose(self) -> None:
        """The server is gone for everybody at once."""
        wires, self.wires = self.wires, []
        self.attempts.clear()
        for wire in wires:
            wire.end()


def supervisor(network: Network, draw: Callable[[], float]) -> Supervisor:
    backoff = Backoff(BackoffConfig(), draw)
    made = Supervisor(network.connect, Tokens("x", 1.0), backoff, ServerClock(), Counters())
    made.namespace("/market").want()
    made.start()
    return made


def most_in_a_window(moments: list[float], seconds: float) -> int:
    """The most attempts that any window of that length holds."""
    moments = sorted(moments)
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] > seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def test_five_hundred_clients_that_lose_their_server_come_back_spread() -> None:
    async def scenario(back_after: float) -> None:
        network = Network()
        clients = [supervisor(network, random.Random(seed).random) for seed in range(CLIENTS)]
        await asyncio.gather(*(each.online.passed() for each in clients))
        network.up = back_after == 0
        network.lose()
        await asyncio.sleep(back_after)
        network.up = True
        await asyncio.gather(*(each.online.passed() for each in clients))
        # Of the clients, not of the attempts, of which there may be many more.
        assert most_in_a_window(network.attempts, 0.1) <= CLIENTS * 0.05
        assert Counter(each.states.now for each in clients) == {ClientState.ONLINE: CLIENTS}
        await asyncio.gather(*(each.close() for each in clients))

    for seconds in (0.0, 3.0, 60.0):
        run(scenario(seconds))


def test_leave_is_taken_where_that_is_possible() -> None:
    async def scenario() -> None:
        network = Network()
        client = supervisor(network, lambda: 1.0)
        await client.online.passed()
        network.wires[0].deaf = True
        await client.close()
        assert client.states.now is ClientState.CLOSED

    run(scenario())


def test_a_connection_that_does_not_last_makes_the_next_wait_longer() -> None:
    async def scenario() -> None:
        network = Network()
        client = supervisor(network, lambda: 1.0)
        delays = []
        for stays in (29.0, 1.0, 1.0, 31.0, 1.0):
            await client.online.passed()
            await asyncio.sleep(stays)
            lost_at = asyncio.get_running_loop().time()
            network.lose()
            await asyncio.sleep(0)
            await client.online.passed()
            delays.append(round(network.attempts[0] - lost_at, 6))
        # After half a minute of stability it begins anew.
        assert delays == [5.0, 10.0, 20.0, 5.0, 10.0]
        await client.close()

    run(scenario())
