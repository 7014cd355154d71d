"""Test the SDK on a faulty network with a crashing server: exactly once, or a reported gap."""

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
from server.core.errors import RequestError
from tests.chaos.reader_log import position_key
from tests.chaos.sdk_crowd import ROOM, SYMBOLS, TRADES, ActivityGate, MessageLogs, User, trade_data
from tests.kit.clients.wire import RawClient
from tests.kit.clock import RunningClock
from tests.kit.message_log import PositionKey
from tests.kit.network.faults import Chaos, Fault, plan
from tests.kit.network.tcp_proxy import Proxy
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.in_process import RunningServer, running

SECONDS = float(os.environ.get("FLOORCAST_CHAOS_SECONDS", "10"))
SEED = "floorcast"
ROUNDS = max(3, round(SECONDS / 4))
FAULT_SECONDS = (0.05, 0.3)
# The healthy user's token expires while it is connected.
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
    """The current server, and two proxies to it: a faulty one and a healthy one."""

    def __init__(self, clock: RunningClock, faulty: Proxy, healthy: Proxy) -> None:
        self.clock = clock
        self.faulty = faulty
        self.healthy = healthy
        self.node: RunningServer
        self._stack: contextlib.AsyncExitStack

    async def start(self) -> None:
        """Start a new, empty server behind both proxies."""
        self._stack = contextlib.AsyncExitStack()
        self.node = await self._stack.enter_async_context(running(SETTINGS, clock=self.clock))
        self.faulty.upstream_port = self.healthy.upstream_port = self.node.port

    async def stop(self) -> None:
        await self._stack.aclose()

    async def crash(self) -> None:
        """Crash the server and start a new one."""
        for proxy in (self.faulty, self.healthy):
            proxy.refuse()
            proxy.reset_all()
        await self.stop()
        await self.start()
        for proxy in (self.faulty, self.healthy):
            await proxy.accept()

    async def replace(self) -> None:
        """Start a new server and drain the old one."""
        old, stack = self.node, self._stack
        await self.start()
        await old.server.drain(0.5)
        await stack.aclose()


class CachedTokens:
    """Returns the same token until it expires, as many token issuers do."""

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
async def test_sdk_reports_every_gap_and_delivers_no_duplicate() -> None:
    tasks, threads = asyncio.all_tasks(), threading.enumerate()
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with Proxy(0) as faulty, Proxy(0) as healthy:
        deployment = Deployment(RunningClock(), faulty, healthy)
        await deployment.start()
        counts = await ChaosRun(deployment).run()
        deployment.node.pass_time(GRACE_SECONDS + 1)
        await deployment.node.server.sessions.service.sweep()
        await deployment.node.until_empty()
        await deployment.stop()
    print(dict(counts))
    assert asyncio.all_tasks() == tasks
    assert threading.enumerate() == threads
    # An unretrieved exception is reported when its task or future is collected.
    gc.collect()
    assert not errors
    assert counts["healthy tokens"] >= 3
    assert sum(counts[fault] for fault in Fault) >= 2 * SECONDS


class ChaosRun:
    """Rounds of faults, each followed by a check of all clients."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.counts: Counter[str] = Counter()
        self.logs = MessageLogs()
        self.gate = ActivityGate()
        self.healthy_tokens = CachedTokens(deployment, "healthy", TOKEN_SECONDS)
        self.users = [
            self._user(
                "quick", deployment.faulty, CachedTokens(deployment, "quick", TOKEN_SECONDS)
            ),
            # So slow, and with so small a buffer, that it must fetch many messages again.
            self._user(
                "slow", deployment.faulty, CachedTokens(deployment, "slow", 3600), 0.002, 20
            ),
            self._user("healthy", deployment.healthy, self.healthy_tokens),
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
        """Run all rounds; return what was counted."""
        async with asyncio.TaskGroup() as group:
            ready = [asyncio.Event() for _ in self.users]
            user_tasks = [
                group.create_task(user.run(event), name=user.name)
                for user, event in zip(self.users, ready, strict=True)
            ]
            for event in ready:
                await event.wait()
            user_tasks.append(group.create_task(self._feed(), name="feed"))
            for number in range(ROUNDS):
                await self._disrupt(number)
                await self._settle()
            for task in user_tasks:
                task.cancel()
        self._check()
        return self.counts

    async def _disrupt(self, number: int) -> None:
        self.gate.is_open.set()
        # About as many as fit into this round.
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
        """Publish inside the server, unaffected by the network."""
        random = Random(SEED)
        number = 0
        while True:
            async with self.gate.work(0.04):
                number += 1
                for symbol in SYMBOLS:
                    await self._publish(f"TRADES:{symbol}", f"feed/{number}")
                    # Bids are below 50 and asks above, so the book is never crossed.
                    bids = random.sample(range(1, 50), 3)
                    asks = random.sample(range(51, 100), 3)
                    change = {
                        "bids": [[f"{price}.0", str(random.randint(0, 5))] for price in bids],
                        "asks": [[f"{price}.0", str(random.randint(0, 5))] for price in asks],
                    }
                    await self._publish_book(f"ORDERBOOK:{symbol}", change)

    async def _publish_book(self, topic: str, change: dict[str, list[list[str]]]) -> None:
        publish = self.deployment.node.server.market.publishing.publish
        try:
            await publish(topic, change)
        except RequestError:
            # The server was restarted, and the book with it.
            await publish(topic, change, kind="snapshot")

    async def _publish(self, topic: str, label: str) -> Position:
        receipt = await self.deployment.node.server.market.publishing.publish(
            topic, trade_data(label)
        )
        position = Position(epoch=receipt.epoch, seq=receipt.seq)
        self.logs[topic].acknowledge(position_key(position), label)
        return position

    async def _settle(self) -> None:
        """Without faults and publishers, wait until every client has everything, and check it."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await until(lambda: self.gate.is_idle)
                await self._until_caught_up()
                # One more message each: a reader of a lost epoch must continue in the next one.
                self.counts["final messages"] += 1
                label = f"last/{self.counts['final messages']}"
                last = {topic: await self._publish(topic, label) for topic in TRADES}
                sent = await self.users[-1].session.send({"label": f"healthy-{label}"})
                self.logs[ROOM].acknowledge(position_key(sent.position), f"healthy-{label}")
                last[ROOM] = sent.position
                await until(lambda: self._all_have_read(last))
        except TimeoutError:
            raise AssertionError(
                f"clients did not settle within {MAX_WAIT_SECONDS} s: {self._describe()}"
            ) from None
        seconds = asyncio.get_running_loop().time() - began
        self.counts["slowest settling, in ms"] = max(
            self.counts["slowest settling, in ms"], round(seconds * 1000)
        )

    async def _until_caught_up(self) -> None:
        heads = await self._heads()
        positions = {name: position for name, (position, _) in heads.items()}
        await until(lambda: all(self._is_caught_up(user, positions) for user in self.users))
        for user in self.users:
            for book in user.books:
                assert book.checksum() == heads[book.topic][1], (user.name, book)
                self.counts["books compared"] += 1

    def _is_caught_up(self, user: User, positions: dict[str, PositionKey]) -> bool:
        return user.client.state is ClientState.ONLINE and all(
            [user.has_reached(name, positions[name]) for name in (*TRADES, ROOM)]
            + [
                book.status is BookStatus.LIVE
                and book.position is not None
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
        """The heads and checksums that the server returns to a new client."""
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
                {name: log.position for name, log in user.reader_logs.items()},
                [(book, book.position) for book in user.books],
            )
            for user in self.users
        ]

    def _check(self) -> None:
        """Check every log, and count what was received."""
        restarts = self.counts["crashes"] + self.counts["replacements"]
        for log in self.logs.values():
            log.check_unique()
            self.counts["acknowledged"] += log.acknowledged_count
        for user in self.users:
            stats = user.client.stats
            self.counts["reconnects"] += stats.reconnects
            self.counts["duplicates dropped"] += stats.duplicates
            self.counts["holes filled"] += stats.gaps_seen
            for reader_log in user.reader_logs.values():
                reader_log.check()
                self.counts["read"] += reader_log.count
                self.counts["gaps"] += len(reader_log.gaps)
                # Only a lost epoch may cause a gap.
                assert all(gap.reason is GapReason.EPOCH for gap in reader_log.gaps), (
                    reader_log.gaps
                )
                assert len(reader_log.gaps) <= restarts
        self.counts["healthy tokens"] = self.healthy_tokens.count
