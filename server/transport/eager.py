"""Runs a coroutine eagerly, so that it needs a task only if it suspends."""

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Protocol, cast


class Meter(Protocol):
    """Watches the steps of a coroutine after its first suspension."""

    def delay(self, *, yielded: bool, again: bool) -> Any:
        """What to await before the next step, None if nothing.

        `yielded` if the step before it only let others go first, `again` after such a delay.
        """

    def step(self, coroutine: Coroutine[Any, Any, None], value: Any) -> Any:
        """Send a value to the coroutine; returns what it awaits next."""


class _StartedCoroutine(Coroutine[Any, Any, None]):
    """A suspended coroutine that yields its pending awaitable again to the task that resumes it.

    Not a generator: a task that is cancelled before its first step calls `throw`, which must
    reach the suspended coroutine so that its `finally` runs.
    """

    __slots__ = (
        "_awaited",
        "_coroutine",
        "_has_yielded",
        "_is_delayed",
        "_meter",
        "_repeated",
        "_value",
    )

    def __init__(
        self, coroutine: Coroutine[Any, Any, None], awaited: object, meter: Meter | None
    ) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        self._meter = meter
        self._repeated = False
        self._has_yielded = awaited is None
        # The value for the step that is delayed.
        self._is_delayed = False
        self._value: Any = None

    def send(self, value: Any) -> Any:
        if not self._repeated:
            self._repeated = True
            awaited, self._awaited = self._awaited, None
            return awaited
        if self._meter is None:
            return self._coroutine.send(value)
        again = self._is_delayed
        if again:
            value, self._value, self._is_delayed = self._value, None, False
        delay = self._meter.delay(yielded=self._has_yielded, again=again)
        if delay is not None:
            self._is_delayed, self._value = True, value
            return delay
        awaited = self._meter.step(self._coroutine, value)
        self._has_yielded = awaited is None
        return awaited

    def throw(
        self,
        typ: Any,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        self._repeated = True
        self._is_delayed = False
        self._awaited = self._value = None
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
