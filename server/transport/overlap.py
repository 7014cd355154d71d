"""The events of one connection that wait at the same time, because their order does not matter."""

import asyncio
from dataclasses import dataclass

# What an event must keep its order with: the topics, or the session, that it names.
OrderKeys = frozenset[str]

# Beyond either, the next event waits until one has ended.
_MAX_EVENTS = 16
_MAX_CHARACTERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Event:
    keys: OrderKeys
    characters: int


class Overlap:
    """The suspended events that later ones may overtake, bounded in number and size."""

    __slots__ = ("_characters", "_events")

    def __init__(self) -> None:
        self._events: dict[asyncio.Task[None], _Event] = {}
        self._characters = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, task: asyncio.Task[None], keys: OrderKeys, characters: int) -> bool:
        """Let later events overtake this one; False, without an effect, if there are too many."""
        if len(self._events) >= _MAX_EVENTS or self._characters + characters > _MAX_CHARACTERS:
            return False
        self._events[task] = _Event(keys, characters)
        self._characters += characters
        return True

    def remove(self, task: asyncio.Task[None] | None) -> bool:
        """Remove an event that has ended; False if it is not here."""
        event = None if task is None else self._events.pop(task, None)
        if event is None:
            return False
        self._characters -= event.characters
        return True

    def cancel(self) -> None:
        """Cancel every event: the connection has ended."""
        for task in tuple(self._events):
            task.cancel()

    async def wait(self, keys: OrderKeys | None) -> None:
        """Wait until the present events that share one of the keys have ended; None: all."""
        earlier = [
            task
            for task, event in self._events.items()
            if keys is None or not keys.isdisjoint(event.keys)
        ]
        if earlier:
            await asyncio.wait(earlier)
