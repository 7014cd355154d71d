"""A broker whose calls and deliveries a test releases in any order."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from server.brokers import MemoryBroker, MemoryConfig
from server.core.log.entries import Entry, Position, Receipt, Reset
from server.core.log.idempotency import Claim
from server.ports import Clock, ignore

T = TypeVar("T")

# Loop iterations after which every task is blocked.
_IDLE_TURNS = 12


class SlowBroker(MemoryBroker):
    """A memory broker as slow as a network: calls wait both before and after they run."""

    def __init__(self, clock: Clock, *, epoch: str, config: MemoryConfig | None = None) -> None:
        super().__init__(clock, epoch=epoch, config=config)
        self.holding = False
        self._held: list[asyncio.Future[None]] = []
        self._undelivered: deque[Entry] = deque()
        self._deliver_now: Callable[[Entry], None] = ignore

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        self._deliver_now = deliver
        await super().start(self._undelivered.append, on_reset=on_reset, on_state=on_state)

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        return await self._slowly(super().find, channel, claim)

    async def publish(self, *args: Any, **options: Any) -> Receipt:
        return await self._slowly(super().publish, *args, **options)

    async def head(self, channel: str) -> Position:
        return await self._slowly(super().head, channel)

    async def latest(self, channel: str) -> Entry | None:
        return await self._slowly(super().latest, channel)

    async def since(self, channel: str, position: Position) -> list[Entry] | None:
        await self._wait_turn()
        found = await super().since(channel, position)
        # `since` returns only delivered entries.
        while self._undelivered:
            self._deliver_now(self._undelivered.popleft())
        await self._wait_turn()
        return found

    async def before(self, channel: str, seq: int | None, limit: int) -> list[Entry]:
        return await self._slowly(super().before, channel, seq, limit)

    async def watch(self, channel: str) -> None:
        await self._slowly(super().watch, channel)

    async def unwatch(self, channel: str) -> None:
        await self._slowly(super().unwatch, channel)

    async def _slowly(self, call: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
        await self._wait_turn()
        answer = await call(*args, **options)
        await self._wait_turn()
        return answer

    async def _wait_turn(self) -> None:
        if self.holding:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held.append(future)
            await future

    async def interleave(
        self, calls: list[Coroutine[Any, Any, T]], choice: random.Random
    ) -> list[T | BaseException]:
        """Run the calls, and release one blocked step after another in random order."""
        self.holding = True
        tasks = [asyncio.ensure_future(call) for call in calls]
        while True:
            for _ in range(_IDLE_TURNS):
                await asyncio.sleep(0)
            choices = len(self._held) + bool(self._undelivered)
            if not choices:
                break
            index = choice.randrange(choices)
            if index == len(self._held):
                self._deliver_now(self._undelivered.popleft())
            else:
                future = self._held.pop(index)
                # The call may have been cancelled.
                if not future.done():
                    future.set_result(None)
        self.holding = False
        return await asyncio.gather(*tasks, return_exceptions=True)
