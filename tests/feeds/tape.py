"""Stands in for the server's publishing, and for the time that a feed sleeps through."""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass

from server.core.log.entries import Position
from tests.kit.clock import ManualClock


@dataclass(frozen=True, slots=True)
class Line:
    """One message as a feed published it."""

    topic: str
    data: Mapping[str, object]
    kind: str = "update"
    user: str | None = None
    org: str = "default"


class Tape:
    """Writes down what a feed publishes, and ends it after so many."""

    def __init__(self, length: float = math.inf) -> None:
        self.lines: list[Line] = []
        self._length = length

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
    ) -> Position:
        if len(self.lines) >= self._length:
            raise asyncio.CancelledError
        self.lines.append(Line(topic, data, kind, user, org))
        return Position("e", len(self.lines))

    def of(self, topic: str) -> list[Line]:
        """What was published of one topic, or of one stream."""
        return [line for line in self.lines if topic in (line.topic, line.topic.split(":")[0])]


class Sleeper:
    """Lets the clock pass instead of waiting, and remembers each sleep."""

    def __init__(self, clock: ManualClock) -> None:
        self.slept: list[float] = []
        self._clock = clock

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._clock.advance(seconds)
