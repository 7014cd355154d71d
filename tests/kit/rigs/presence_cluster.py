"""Nodes of a cluster as their assembly sees them: what they hear of sessions, in order."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from server.brokers import (
    Address,
    MemoryAssembly,
    RedisAssembly,
    RedisBroker,
    RedisConfig,
)
from server.core.counters import Counters
from server.core.sessions.events import Happening, News
from server.core.sessions.records import SessionKey, SessionRules, session_channel
from server.ports import Assembly, unheard
from tests.kit.clock import ManualClock
from tests.kit.patience import PATIENCE_SECONDS

ROOM: SessionKey = ("acme", "room")
RULES = SessionRules(grace_seconds=10.0, retention_seconds=60.0)
_prefixes = itertools.count(1)


@dataclass(slots=True)
class Hall:
    """One node: its assembly, and what it heard; `ann1` is one of ann's connections."""

    assembly: Assembly
    broker: RedisBroker | None = None
    counters: Counters = field(default_factory=Counters)
    heard: list[News] = field(default_factory=list)

    async def start(self) -> None:
        if self.broker is not None:
            await self.broker.start(unheard)
        await self.assembly.start(self.heard.append)

    async def stop(self) -> None:
        await self.assembly.stop()
        if self.broker is not None:
            await self.broker.stop()

    async def die(self) -> None:
        """End as a killed process does: nothing is said any more."""
        assert isinstance(self.assembly, RedisAssembly)
        assert self.broker is not None
        task, self.assembly._task = self.assembly._task, None
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        await self.assembly.stop()
        await self.broker.stop()

    async def watch(self, key: SessionKey = ROOM) -> None:
        """Hear what happens in a session."""
        if self.broker is not None:
            await self.broker.watch(session_channel(*key))

    async def join(self, *connections: str, key: SessionKey = ROOM) -> None:
        """They come in, one after the other."""
        for connection_id in connections:
            await self.assembly.join(connection_id, connection_id[:-1], key)

    def lose(self, connection_id: str, key: SessionKey = ROOM) -> None:
        """It is cut off."""
        self.assembly.depart(connection_id, key, lost=True)

    async def who(self, key: SessionKey = ROOM) -> dict[str, int]:
        """The users who are there, the longest first, with their connections."""
        gathering = await self.assembly.who(key)
        return {each.user_id: each.connections for each in gathering.members} if gathering else {}

    async def quiet(self) -> None:
        """Wait until everything that this node has to say was said."""
        await self.assembly.sweep()
        if isinstance(self.assembly, RedisAssembly):
            assembly = self.assembly
            await self.until(lambda: assembly.idle)

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for something."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not done():
                await asyncio.sleep(0.001)

    def news(self) -> list[tuple[str, str, int]]:
        """What was heard while it lasted: what, of whom, and how many are there."""
        return [
            (each.what.value, each.user_id, each.participant_count)
            for each in self.heard
            if each.what not in (Happening.SIGNAL, Happening.OVER)
        ]


class Quarter:
    """Makes nodes that share what they know of sessions, in Redis if there is one."""

    def __init__(self, url: str | None) -> None:
        self.clock = ManualClock()
        self.prefix = f"hall{next(_prefixes)}"
        self.halls: list[Hall] = []
        self._url = url

    def _hall(self, rules: SessionRules, timeout_seconds: float) -> Hall:
        if self._url is None:
            return Hall(MemoryAssembly(self.clock, rules))
        counters = Counters()
        address = Address.parse(self._url)
        config = RedisConfig(address, prefix=self.prefix, timeout_seconds=timeout_seconds)
        broker = RedisBroker(self.clock, counters, config)
        return Hall(RedisAssembly(self.clock, config, rules, broker), broker, counters)

    @contextlib.asynccontextmanager
    async def hall(self, *, timeout_seconds: float = 5.0, **rules: float) -> AsyncIterator[Hall]:
        """A node that is up and hears of the room."""
        hall = self._hall(replace(RULES, **rules), timeout_seconds)  # type: ignore[arg-type]
        await hall.start()
        self.halls.append(hall)
        try:
            await hall.watch()
            yield hall
        finally:
            self.halls.remove(hall)
            await hall.stop()

    async def settle(self, key: SessionKey = ROOM) -> None:
        """Everything that was done has been heard everywhere."""
        for hall in self.halls:
            await hall.quiet()
        for hall in self.halls:
            before = [sum(each.what is Happening.SIGNAL for each in h.heard) for h in self.halls]
            await hall.assembly.signal(key, "nobody", "nobody", b"{}")
            for other, count in zip(self.halls, before, strict=True):
                await other.until(
                    lambda other=other, count=count: (  # type: ignore[misc]
                        sum(each.what is Happening.SIGNAL for each in other.heard) > count
                    )
                )

    async def pass_time(self, seconds: float, key: SessionKey = ROOM) -> None:
        """Let time pass in steps, and let every node see it."""
        while seconds > 0:
            self.clock.advance(min(seconds, 1.0))
            seconds -= 1.0
            for hall in self.halls:
                await hall.quiet()
        await self.settle(key)
