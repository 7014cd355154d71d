"""Runs a coroutine eagerly, so that it needs a task only if it suspends."""

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, cast


class Meter(Protocol):
    """Watches the steps of a coroutine after its first suspension."""

    def gate(self, awaited: Any) -> Any:
        """Replace what the coroutine awaits."""

    def step(self, coroutine: Coroutine[Any, Any, None], value: Any) -> Any:
        """Send a value to the coroutine; returns what it awaits next."""


class _StartedCoroutine(Coroutine[Any, Any, None]):
    """A suspended coroutine that yields its pending awaitable again to the task that resumes it.

    Not a generator: a task that is cancelled before its first step calls `throw`, which must
    reach the suspended coroutine so that its `finally` runs.
    """

    __slots__ = ("_awaited", "_coroutine", "_meter", "_repeated")

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], awaited: object, meter: Meter | None
    ) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        self._meter = meter
        self._repeated = False

    def send(self, value: Any) -> Any:
        if not self._repeated:
            self._repeated = True
            awaited, self._awaited = self._awaited, None
            return awaited if self._meter is None else self._meter.gate(awaited)
        if self._meter is not None:
            return self._meter.step(self._coroutine, value)
        return self._coroutine.send(value)

    def throw(
        self,
        typ: Any,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        self._repeated = True
        self._awaited = None
        return self._coroutine.throw(typ if val is None else cast(Any, val))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, None, None]:
        raise TypeError("a started coroutine cannot be awaited: create a task of it")


def start(
    coroutine: Coroutine[Any, Any, None], meter: Meter | None = None
) -> Coroutine[Any, Any, None] | None:
    """Run until the first suspension; return the rest for a task, or None if it finished.

    A task for each message costs more than most handlers do. Until its first suspension the
    coroutine runs outside any task, so it must not begin with `asyncio.timeout`. A `meter`
    watches the steps after it.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration:
        return None
    return _StartedCoroutine(coroutine, awaited, meter)
