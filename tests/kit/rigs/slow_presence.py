"""An assembly as slow as a network: every call, and all news, wait until a test lets them go."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from server.brokers import MemoryAssembly
from server.core.errors import FloorcastError
from server.core.sessions.events import Happening, News
from server.core.sessions.participants import Gathering
from server.core.sessions.records import SessionKey

T = TypeVar("T")

# Turns of the loop after which every task waits for something.
_QUIET_TURNS = 12


class HeldAssembly(MemoryAssembly):
    """What is asked comes to be later, and is heard later still, in the order in which it was."""

    _held: list[asyncio.Future[None]]
    _unheard: deque[News]
    _unsaid: dict[tuple[str, SessionKey], Callable[[], None]]
    _tell_node: Callable[[News], None]

    async def start(self, hear: Callable[[News], None]) -> None:
        self._held, self._unheard, self._unsaid = [], deque(), {}
        self._tell_node = hear
        await super().start(self._unheard.append)

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Gathering:
        self._unsaid.pop((connection_id, key), None)
        return await self._slowly(super().join, connection_id, user_id, key, metadata)

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        self._unsaid.pop((connection_id, key), None)
        await self._hold()
        super().depart(connection_id, key, lost=False)
        await self._hold()

    def depart(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        go = super().depart
        self._say((connection_id, key), lambda: go(connection_id, key, lost=lost))

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        come = super().rejoin

        def say() -> None:
            try:
                come(connection_id, user_id, key)
            except FloorcastError:
                refused = News(key, Happening.REFUSED, 0, 0, user_id, connection_id=connection_id)
                self._unheard.append(refused)

        self._say((connection_id, key), say)

    async def kick(self, key: SessionKey, user_id: str) -> int:
        return await self._slowly(super().kick, key, user_id)

    async def close(self, key: SessionKey) -> int:
        return await self._slowly(super().close, key)

    async def who(self, key: SessionKey) -> Gathering | None:
        return await self._slowly(super().who, key)

    def _say(self, place: tuple[str, SessionKey], call: Callable[[], None]) -> None:
        self._unsaid.pop(place, None)
        self._unsaid[place] = call

    async def _slowly(self, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        await self._hold()
        answer = await call(*args)
        await self._hold()
        return answer

    async def _hold(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.append(future)
        await future

    async def interleave(
        self, calls: list[Coroutine[Any, Any, None]], choice: random.Random
    ) -> None:
        """Run all of them, and let go of one thing after the other, as chance will have it."""
        async with asyncio.TaskGroup() as group:
            for number, call in enumerate(calls):
                group.create_task(call, name=f"call-{number}")
            while True:
                for _ in range(_QUIET_TURNS):
                    await asyncio.sleep(0)
                choices = len(self._held) + bool(self._unheard) + bool(self._unsaid)
                if not choices:
                    break
                self._let_go(choice.randrange(choices))

    def _let_go(self, index: int) -> None:
        if index < len(self._held):
            self._held.pop(index).set_result(None)
        elif index == len(self._held) and self._unheard:
            self._tell_node(self._unheard.popleft())
        else:
            self._unsaid.pop(next(iter(self._unsaid)))()
