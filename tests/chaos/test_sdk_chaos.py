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
from tests.chaos.sdk_crowd import ROOM, SYMBOLS, TRADES, Logs, Pace, User, deal
from tests.chaos.sdk_ledger import Place
from tests.kit.clients.wire import RawClient
from tests.kit.clock import RunningClock
from tests.kit.network.faults import Chaos, Fault, plan
from tests.kit.network.tcp_proxy import Proxy
from tests.kit.server.in_process import Running, running

SECONDS = float(os.environ.get("FLOORCAST_CHAOS_SECONDS", "10"))
SEED = "floorcast"
ROUNDS = max(3, round(SECONDS / 4))
# Half a second where nothing else runs.
QUIET_SECONDS = 10.0
SPELL = (0.05, 0.3)
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


class World:
    """The server of the moment, and the two ways to it: a stormy one, and one that is well."""

    def __init__(self, clock: RunningClock, stormy: Proxy, calm: Proxy) -> None:
        self.clock = clock
        self.stormy = stormy
        self.calm = calm
        self.floor: Running
        self._stack: contextlib.AsyncExitStack

    async def begin(self) -> None:
        """A new server, with no memory, where clients will find it."""
        self._stack = contextlib.AsyncExitStack()
        self.floor = await self._stack.enter_async_context(running(SETTINGS, clock=self.clock))
        self.stormy.upstream_port = self.calm.upstream_port = self.floor.port

    async def end(self) -> None:
        """It goes."""
        await self._stack.aclose()

    async def crash(self) -> None:
        """All of a sudden it is gone, and after a moment there is another."""
        for proxy in (self.stormy, self.calm):
            proxy.refuse()
            proxy.reset_all()
        await self.end()
        await self.begin()
        for proxy in (self.stormy, self.calm):
            await proxy.accept()

    async def replace(self) -> None:
        """Another takes over while it sends its clients there, each at a moment of its own."""
        old, stack = self.floor, self._stack
        await self.begin()
        await old.server.drain(0.5)
        await stack.aclose()


class Purse:
    """Gives one token until its time is over, as many do who issue tokens."""

    def __init__(self, world: World, user: str, ttl_seconds: int) -> None:
        self._world = world
        self._user = user
        self._ttl_seconds = ttl_seconds
        self._token = ""
        self._ends_at = 0
        self.count = 0

    def __call__(self) -> str:
        now = self._world.clock.time()
        if now >= self._ends_at:
            self._ends_at = int(now) + self._ttl_seconds
            self._token = self._world.floor.token(self._user, ttl_seconds=self._ttl_seconds)
            self.count += 1
        return self._token


@pytest.mark.timeout(120 + 4 * SECONDS)
@pytest.mark.behaviour("E14")
async def test_nothing_is_lost_in_silence_and_nothing_comes_twice() -> None:
    tasks, threads = asyncio.all_tasks(), threading.enumerate()
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with Proxy(0) as stormy, Proxy(0) as calm:
        world = World(RunningClock(), stormy, calm)
        await world.begin()
        done = await Run(world).live()
        world.floor.pass_time(GRACE_SECONDS + 1)
        await world.floor.server.sessions.sweep()
        await world.floor.until_empty()
        await world.end()
    print(dict(done))
    assert asyncio.all_tasks() == tasks
    assert threading.enumerate() == threads
    # An error that nobody took is only noticed when its task or future is thrown away.
    gc.collect()
    assert not complaints
    assert done["tokens of the calm one"] >= 3
    assert sum(done[fault] for fault in Fault) >= 2 * SECONDS


class Run:
    """Rounds of chaos, and after each a look at what has come of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: Counter[str] = Counter()
        self.logs = Logs()
        self.pace = Pace()
        self.purse = Purse(world, "calm", TOKEN_SECONDS)
        self.users = [
            self._user("quick", world.stormy, Purse(world, "quick", TOKEN_SECONDS)),
            # So slow, and with so little room, that it has to ask for much of it again.
            self._user("slow", world.stormy, Purse(world, "slow", 3600), 0.002, 20),
            self._user("calm", world.calm, self.purse),
        ]

    def _user(
        self,
        name: str,
        proxy: Proxy,
        token: Purse,
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
        return User(name, client, self.logs, self.pace, read_seconds)

    async def live(self) -> Counter[str]:
        """All rounds; what was done in them."""
        async with asyncio.TaskGroup() as group:
            here = [asyncio.Event() for _ in self.users]
            living = [
                group.create_task(user.live(event), name=user.name)
                for user, event in zip(self.users, here, strict=True)
            ]
            for event in here:
                await event.wait()
            living.append(group.create_task(self._feed(), name="feed"))
            for number in range(ROUNDS):
                await self._storm(number)
                await self._quiet()
            for task in living:
                task.cancel()
        self._check()
        return self.done

    async def _storm(self, number: int) -> None:
        self.pace.going.set()
        # So many that they take about this round's share of the time.
        count = round(4 * SECONDS / ROUNDS)
        steps = plan(f"{SEED}/{number}", count, every_seconds=SPELL, lasts_seconds=SPELL)
        chaos = Chaos(self.world.stormy, steps)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._restart(number), name="restart")
            group.create_task(chaos.run(), name="chaos")
        self.done.update(chaos.done)
        self.pace.going.clear()

    async def _restart(self, number: int) -> None:
        await asyncio.sleep(SECONDS / ROUNDS / 3)
        if number % 3 == 1:
            self.done["crashes"] += 1
            await asyncio.shield(self.world.crash())
        elif number % 3 == 2:
            self.done["replacements"] += 1
            await asyncio.shield(self.world.replace())

    async def _feed(self) -> None:
        """What the server itself brings in: nothing of it passes through the storm."""
        dice = Random(SEED)
        number = 0
        while True:
            async with self.pace.turn(0.04):
                number += 1
                for symbol in SYMBOLS:
                    await self._bring(f"TRADES:{symbol}", f"feed/{number}")
                    # Bids below 50 and asks above: it is never crossed.
                    bids = dice.sample(range(1, 50), 3)
                    asks = dice.sample(range(51, 100), 3)
                    change = {
                        "bids": [[f"{price}.0", str(dice.randint(0, 5))] for price in bids],
                        "asks": [[f"{price}.0", str(dice.randint(0, 5))] for price in asks],
                    }
                    await self.world.floor.server.publishing.publish(f"ORDERBOOK:{symbol}", change)

    async def _bring(self, topic: str, label: str) -> Position:
        found = await self.world.floor.server.publishing.publish(topic, deal(label))
        position = Position(epoch=found.epoch, seq=found.seq)
        self.logs[topic].acknowledge(position, label)
        return position

    async def _quiet(self) -> None:
        """The network is well and nobody says anything: soon all have all, and it is right."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                while not self.pace.is_still:
                    await asyncio.sleep(0.001)
                await self._until_all_have_all()
                # One more of each: who was told that an epoch is lost reads on in the next.
                self.done["last words"] += 1
                label = f"last/{self.done['last words']}"
                last = {topic: await self._bring(topic, label) for topic in TRADES}
                sent = await self.users[-1].session.send({"label": f"calm-{label}"})
                self.logs[ROOM].acknowledge(sent.position, f"calm-{label}")
                last[ROOM] = sent.position
                while not self._all_have_read(last):
                    await asyncio.sleep(0.001)
        except TimeoutError:
            raise AssertionError(f"not within {QUIET_SECONDS} s: {self._standing()}") from None
        seconds = asyncio.get_running_loop().time() - began
        self.done["slowest quiet, in ms"] = max(
            self.done["slowest quiet, in ms"], round(seconds * 1000)
        )

    async def _until_all_have_all(self) -> None:
        heads = await self._heads()
        places = {name: place for name, (place, _) in heads.items()}
        while not all(self._has_all(user, places) for user in self.users):
            await asyncio.sleep(0.001)
        for user in self.users:
            for book in user.books:
                assert book.checksum() == heads[book.topic][1], (user.name, book)
                self.done["books compared"] += 1

    def _has_all(self, user: User, places: dict[str, Place]) -> bool:
        return user.client.state is ClientState.ONLINE and all(
            [user.has_come_to(name, places[name]) for name in (*TRADES, ROOM)]
            + [
                book.status is BookStatus.LIVE and place_of(book.position) == places[book.topic]
                for book in user.books
            ]
        )

    def _all_have_read(self, last: dict[str, Position]) -> bool:
        return all(
            user.diaries[name].place == place_of(position)
            for user in self.users
            for name, position in last.items()
        )

    async def _heads(self) -> dict[str, tuple[Place, int]]:
        """Where everything stands by the word of the server, to somebody who comes anew."""
        port, token = self.world.floor.port, self.world.floor.token("observer")
        market = await RawClient.connected(port, token)
        session = await RawClient.connected(port, token, namespace="/session")
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

    def _standing(self) -> list[object]:
        return [
            (
                user.name,
                user.client.state,
                user.client.stats,
                {name: diary.place for name, diary in user.diaries.items()},
                [(book, book.position) for book in user.books],
            )
            for user in self.users
        ]

    def _check(self) -> None:
        """The accounts of all agree."""
        restarts = self.done["crashes"] + self.done["replacements"]
        for log in self.logs.values():
            log.check()
            self.done["acknowledged"] += log.acknowledged
        for user in self.users:
            stats = user.client.stats
            self.done["reconnects"] += stats.reconnects
            self.done["duplicates dropped"] += stats.duplicates
            self.done["holes filled"] += stats.gaps_seen
            for diary in user.diaries.values():
                diary.check()
                self.done["read"] += diary.count
                self.done["gaps"] += len(diary.gaps)
                # Only a lost past cannot be made good.
                assert all(gap.reason is GapReason.EPOCH for gap in diary.gaps), diary.gaps
                assert len(diary.gaps) <= restarts
        self.done["tokens of the calm one"] = self.purse.count


def place_of(position: Position | None) -> Place | None:
    """As the ledger writes it."""
    return None if position is None else (position.epoch, position.seq)
