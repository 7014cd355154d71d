"""Runs a coroutine eagerly, so that it needs a task only if it suspends."""

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, cast


class _StartedCoroutine(Coroutine[Any, Any, None]):
    """A suspended coroutine that yields its pending awaitable again to the task that resumes it.

    Not a generator: a task that is cancelled before its first step calls `throw`, which must
    reach the suspended coroutine so that its `finally` runs.
    """

    __slots__ = ("_awaited", "_coroutine", "_repeated")

    def __init__(self, coroutine: Coroutine[Any, Any, None], awaited: object) -> None:
        self._coroutine = coroutine
        self._awaited = awaited
        self._repeated = False

    def send(self, value: Any) -> Any:
        if not self._repeated:
            self._repeated = True
            awaited, self._awaited = self._awaited, None
            return awaited
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


def start(coroutine: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None] | None:
    """Run until the first suspension; return the rest for a task, or None if it finished.

    A task for each message costs more than most handlers do. Until its first suspension the
    coroutine runs outside any task, so it must not begin with `asyncio.timeout`.
    """
    try:
        awaited = coroutine.send(None)
    except StopIteration:
        return None
    return _StartedCoroutine(coroutine, awaited)
