"""The client SDK through a network and a server that do as they like: exactly once, or told."""

import asyncio
import contextlib
import gc
import os
import threading
from collections import Counter
from random import Random
from typing import Any

import pytest

from client_sdk import (
    BackoffConfig,
    BookStatus,
    Client,
    ClientConfig,
    ClientState,
    GapReason,
    Position,
)
from tests.chaos.sdk_crowd import ROOM, SYMBOLS, TRADES, ActivityGate, MessageLogs, User, trade_data
from tests.chaos.sdk_ledger import PositionKey
from tests.kit.clients.wire import RawClient
from tests.kit.clock import RunningClock
from tests.kit.network.faults import Chaos, Fault, plan
from tests.kit.network.tcp_proxy import Proxy
from tests.kit.server.in_process import RunningServer, running

SECONDS = float(os.environ.get("FLOORCAST_CHAOS_SECONDS", "10"))
SEED = "floorcast"
ROUNDS = max(3, round(SECONDS / 4))
# Half a second where nothing else runs.
SETTLE_SECONDS = 10.0
FAULT_SECONDS = (0.05, 0.3)
# Of the one user whose network is well, so that its token really ends while it is connected.
TOKEN_SECONDS = max(2, int(SECONDS / 4))
GRACE_SECONDS = 10.0
SETTINGS = {
    "limits.connections_per_ip": 0,
    "limits.connects_per_second_per_ip": 0,
    "limits.events_per_second": 0,
    "auth.expiring_notice_seconds": 0.5,
    "auth.expiry_grace_seconds": 0.1,
    "ping.interval_seconds": 0.5,
    "ping.timeout_seconds": 0.5,
    "session.grace_seconds": GRACE_SECONDS,
}
BACKOFF = BackoffConfig(least_seconds=0.02, first_seconds=0.2, most_seconds=0.3)


class Deployment:
    """The server of the moment, and the two ways to it: a stormy one, and one that is well."""

    def __init__(self, clock: RunningClock, faulty: Proxy, healthy: Proxy) -> None:
        self.clock = clock
        self.faulty = faulty
        self.healthy = healthy
        self.node: RunningServer
        self._stack: contextlib.AsyncExitStack

    async def start(self) -> None:
        """A new server, with no memory, where clients will find it."""
        self._stack = contextlib.AsyncExitStack()
        self.node = await self._stack.enter_async_context(running(SETTINGS, clock=self.clock))
        self.faulty.upstream_port = self.healthy.upstream_port = self.node.port

    async def stop(self) -> None:
        """It goes."""
        await self._stack.aclose()

    async def crash(self) -> None:
        """All of a sudden it is gone, and after a moment there is another."""
        for proxy in (self.faulty, self.healthy):
            proxy.refuse()
            proxy.reset_all()
        await self.stop()
        await self.start()
        for proxy in (self.faulty, self.healthy):
            await proxy.accept()

    async def replace(self) -> None:
        """Another takes over while it sends its clients there, each at a moment of its own."""
        old, stack = self.node, self._stack
        await self.start()
        await old.server.drain(0.5)
        await stack.aclose()


class CachedTokens:
    """Gives one token until its time is over, as many do who issue tokens."""

    def __init__(self, deployment: Deployment, user: str, ttl_seconds: int) -> None:
        self._deployment = deployment
        self._user = user
        self._ttl_seconds = ttl_seconds
        self._token = ""
        self._expires_at = 0
        self.count = 0

    def __call__(self) -> str:
        now = self._deployment.clock.time()
        if now >= self._expires_at:
            self._expires_at = int(now) + self._ttl_seconds
            self._token = self._deployment.node.token(self._user, ttl_seconds=self._ttl_seconds)
            self.count += 1
        return self._token


@pytest.mark.timeout(120 + 4 * SECONDS)
@pytest.mark.behaviour("E14")
async def test_nothing_is_lost_in_silence_and_nothing_comes_twice() -> None:
    tasks, threads = asyncio.all_tasks(), threading.enumerate()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with Proxy(0) as stormy, Proxy(0) as calm:
        world = Deployment(RunningClock(), stormy, calm)
        await world.start()
        done = await ChaosRun(world).run()
        world.node.pass_time(GRACE_SECONDS + 1)
        await world.node.server.sessions.sweep()
        await world.node.until_empty()
        await world.stop()
    print(dict(done))
    assert asyncio.all_tasks() == tasks
    assert threading.enumerate() == threads
    # An error that nobody took is only noticed when its task or future is thrown away.
    gc.collect()
    assert not complaints
    assert done["tokens of the calm one"] >= 3
    assert sum(done[fault] for fault in Fault) >= 2 * SECONDS


class ChaosRun:
    """Rounds of chaos, and after each a look at what has come of it."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.counts: Counter[str] = Counter()
        self.logs = MessageLogs()
        self.gate = ActivityGate()
        self.healthy_tokens = CachedTokens(deployment, "calm", TOKEN_SECONDS)
        self.users = [
            self._user(
                "quick", deployment.faulty, CachedTokens(deployment, "quick", TOKEN_SECONDS)
            ),
            # So slow, and with so little room, that it has to ask for much of it again.
            self._user(
                "slow", deployment.faulty, CachedTokens(deployment, "slow", 3600), 0.002, 20
            ),
            self._user("calm", deployment.healthy, self.healthy_tokens),
        ]

    def _user(
        self,
        name: str,
        proxy: Proxy,
        token: CachedTokens,
        read_seconds: float = 0.0,
        buffer_messages: int = 1000,
    ) -> User:
        config = ClientConfig(
            connect_seconds=1.0,
            answer_seconds=1.0,
            buffer_messages=buffer_messages,
            backoff=BACKOFF,
        )
        client = Client(proxy.url, token, config=config)
        return User(name, client, self.logs, self.gate, read_seconds)

    async def run(self) -> Counter[str]:
        """All rounds; what was done in them."""
        async with asyncio.TaskGroup() as group:
            here = [asyncio.Event() for _ in self.users]
            living = [
                group.create_task(user.run(event), name=user.name)
                for user, event in zip(self.users, here, strict=True)
            ]
            for event in here:
                await event.wait()
            living.append(group.create_task(self._feed(), name="feed"))
            for number in range(ROUNDS):
                await self._disrupt(number)
                await self._settle()
            for task in living:
                task.cancel()
        self._check()
        return self.counts

    async def _disrupt(self, number: int) -> None:
        self.gate.is_open.set()
        # So many that they take about this round's share of the time.
        count = round(4 * SECONDS / ROUNDS)
        steps = plan(
            f"{SEED}/{number}", count, pause_seconds=FAULT_SECONDS, duration_seconds=FAULT_SECONDS
        )
        chaos = Chaos(self.deployment.faulty, steps)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._restart(number), name="restart")
            group.create_task(chaos.run(), name="chaos")
        self.counts.update(chaos.counts)
        self.gate.is_open.clear()

    async def _restart(self, number: int) -> None:
        await asyncio.sleep(SECONDS / ROUNDS / 3)
        if number % 3 == 1:
            self.counts["crashes"] += 1
            await asyncio.shield(self.deployment.crash())
        elif number % 3 == 2:
            self.counts["replacements"] += 1
            await asyncio.shield(self.deployment.replace())

    async def _feed(self) -> None:
        """What the server itself brings in: nothing of it passes through the storm."""
        dice = Random(SEED)
        number = 0
        while True:
            async with self.gate.work(0.04):
                number += 1
                for symbol in SYMBOLS:
                    await self._publish(f"TRADES:{symbol}", f"feed/{number}")
                    # Bids below 50 and asks above: it is never crossed.
                    bids = dice.sample(range(1, 50), 3)
                    asks = dice.sample(range(51, 100), 3)
                    change = {
                        "bids": [[f"{price}.0", str(dice.randint(0, 5))] for price in bids],
                        "asks": [[f"{price}.0", str(dice.randint(0, 5))] for price in asks],
                    }
                    await self.deployment.node.server.publishing.publish(
                        f"ORDERBOOK:{symbol}", change
                    )

    async def _publish(self, topic: str, label: str) -> Position:
        found = await self.deployment.node.server.publishing.publish(topic, trade_data(label))
        position = Position(epoch=found.epoch, seq=found.seq)
        self.logs[topic].acknowledge(position, label)
        return position

    async def _settle(self) -> None:
        """The network is well and nobody says anything: soon all have all, and it is right."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while not self.gate.is_idle:
                    await asyncio.sleep(0.001)
                await self._until_caught_up()
                # One more of each: who was told that an epoch is lost reads on in the next.
                self.counts["last words"] += 1
                label = f"last/{self.counts['last words']}"
                last = {topic: await self._publish(topic, label) for topic in TRADES}
                sent = await self.users[-1].session.send({"label": f"calm-{label}"})
                self.logs[ROOM].acknowledge(sent.position, f"calm-{label}")
                last[ROOM] = sent.position
                while not self._all_have_read(last):
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"not within {SETTLE_SECONDS} s: {self._describe()}") from None
        seconds = asyncio.get_running_loop().time() - began
        self.counts["slowest quiet, in ms"] = max(
            self.counts["slowest quiet, in ms"], round(seconds * 1000)
        )

    async def _until_caught_up(self) -> None:
        heads = await self._heads()
        places = {name: place for name, (place, _) in heads.items()}
        while not all(self._is_caught_up(user, places) for user in self.users):
            await asyncio.sleep(0.001)
        for user in self.users:
            for book in user.books:
                assert book.checksum() == heads[book.topic][1], (user.name, book)
                self.counts["books compared"] += 1

    def _is_caught_up(self, user: User, positions: dict[str, PositionKey]) -> bool:
        return user.client.state is ClientState.ONLINE and all(
            [user.has_reached(name, positions[name]) for name in (*TRADES, ROOM)]
            + [
                book.status is BookStatus.LIVE
                and position_key(book.position) == positions[book.topic]
                for book in user.books
            ]
        )

    def _all_have_read(self, last: dict[str, Position]) -> bool:
        return all(
            user.reader_logs[name].position == position_key(position)
            for user in self.users
            for name, position in last.items()
        )

    async def _heads(self) -> dict[str, tuple[PositionKey, int]]:
        """Where everything stands by the word of the server, to somebody who comes anew."""
        port, token = self.deployment.node.port, self.deployment.node.token("observer")
        market = await RawClient.connect(port, token)
        session = await RawClient.connect(port, token, namespace="/session")
        topics = [*TRADES, *(f"ORDERBOOK:{symbol}" for symbol in SYMBOLS)]
        answer = await market.call("subscribe", {"topics": topics})
        room = await session.call("join", {"session_id": ROOM}, namespace="/session")
        heads = {ROOM: ((room["epoch"], room["seq"]), 0)}
        for topic, state in answer["topics"].items():
            data = (state["snapshot"] or {"data": {}})["data"]
            heads[topic] = (state["epoch"], state["seq"]), data.get("checksum", 0)
        market.cut()
        session.cut()
        return heads

    def _describe(self) -> list[object]:
        return [
            (
                user.name,
                user.client.state,
                user.client.stats,
                {name: diary.position for name, diary in user.reader_logs.items()},
                [(book, book.position) for book in user.books],
            )
            for user in self.users
        ]

    def _check(self) -> None:
        """The accounts of all agree."""
        restarts = self.counts["crashes"] + self.counts["replacements"]
        for log in self.logs.values():
            log.check_unique()
            self.counts["acknowledged"] += log.acknowledged
        for user in self.users:
            stats = user.client.stats
            self.counts["reconnects"] += stats.reconnects
            self.counts["duplicates dropped"] += stats.duplicates
            self.counts["holes filled"] += stats.gaps_seen
            for diary in user.reader_logs.values():
                diary.check()
                self.counts["read"] += diary.count
                self.counts["gaps"] += len(diary.gaps)
                # Only a lost past cannot be made good.
                assert all(gap.reason is GapReason.EPOCH for gap in diary.gaps), diary.gaps
                assert len(diary.gaps) <= restarts
        self.counts["tokens of the calm one"] = self.healthy_tokens.count


def position_key(position: Position | None) -> PositionKey | None:
    """As the ledger writes it."""
    return None if position is None else (position.epoch, position.seq)
