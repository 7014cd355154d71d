"""A presence manager whose calls and events a test releases in any order."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

from server.brokers import MemoryPresence
from server.core.errors import FloorcastError
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.participants import Participants
from server.core.sessions.records import SessionKey

T = TypeVar("T")

# Loop iterations after which every task is blocked.
_IDLE_TURNS = 12


class SlowPresence(MemoryPresence):
    """A memory manager as slow as a network; events arrive later, in order."""

    _held: list[asyncio.Future[None]]
    _undelivered: deque[SessionEvent]
    _pending: dict[tuple[str, SessionKey], Callable[[], None]]
    _deliver_now: Callable[[SessionEvent], None]

    async def start(self, on_event: Callable[[SessionEvent], None]) -> None:
        self._held, self._undelivered, self._pending = [], deque(), {}
        self._deliver_now = on_event
        await super().start(self._undelivered.append)

    async def join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None = None,
    ) -> Participants:
        self._pending.pop((connection_id, key), None)
        return await self._slowly(super().join, connection_id, user_id, key, metadata)

    async def leave(self, connection_id: str, key: SessionKey) -> None:
        self._pending.pop((connection_id, key), None)
        await self._wait_turn()
        super().remove(connection_id, key, lost=False)
        await self._wait_turn()

    def remove(self, connection_id: str, key: SessionKey, *, lost: bool) -> None:
        remove = super().remove
        self._enqueue((connection_id, key), lambda: remove(connection_id, key, lost=lost))

    def rejoin(self, connection_id: str, user_id: str, key: SessionKey) -> None:
        rejoin = super().rejoin

        def rejoin_now() -> None:
            try:
                rejoin(connection_id, user_id, key)
            except FloorcastError:
                refused = SessionEvent(
                    key, SessionEventKind.REFUSED, 0, 0, user_id, connection_id=connection_id
                )
                self._undelivered.append(refused)

        self._enqueue((connection_id, key), rejoin_now)

    async def kick(self, key: SessionKey, user_id: str) -> int:
        return await self._slowly(super().kick, key, user_id)

    async def close(self, key: SessionKey) -> int:
        return await self._slowly(super().close, key)

    async def participants(self, key: SessionKey) -> Participants | None:
        return await self._slowly(super().participants, key)

    def _enqueue(self, connection: tuple[str, SessionKey], call: Callable[[], None]) -> None:
        self._pending.pop(connection, None)
        self._pending[connection] = call

    async def _slowly(self, call: Callable[..., Awaitable[T]], *args: Any) -> T:
        await self._wait_turn()
        answer = await call(*args)
        await self._wait_turn()
        return answer

    async def _wait_turn(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._held.append(future)
        await future

    async def interleave(
        self, calls: list[Coroutine[Any, Any, None]], choice: random.Random
    ) -> None:
        """Run the calls, and release one blocked step after another in random order."""
        async with asyncio.TaskGroup() as group:
            for number, call in enumerate(calls):
                group.create_task(call, name=f"call-{number}")
            while True:
                for _ in range(_IDLE_TURNS):
                    await asyncio.sleep(0)
                choices = len(self._held) + bool(self._undelivered) + bool(self._pending)
                if not choices:
                    break
                self._release_one(choice.randrange(choices))

    def _release_one(self, index: int) -> None:
        if index < len(self._held):
            self._held.pop(index).set_result(None)
        elif index == len(self._held) and self._undelivered:
            self._deliver_now(self._undelivered.popleft())
        else:
            self._pending.pop(next(iter(self._pending)))()
