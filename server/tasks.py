"""Owns background tasks: a task that fails is logged, counted, and restarted."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from server.core.counters import Counters

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.05, 5.0
# After running for this long, a task that fails is restarted without a longer pause.
_STABLE_SECONDS = 30.0
_CANCEL_RETRY_SECONDS = 0.1


class TaskOwner:
    """Starts the background tasks of a server; none of them can end unnoticed.

    A failure is logged with its traceback and counted in `tasks.failed`, a restart in
    `tasks.restarted`. Until the restart, `failing` has the name of the task.
    """

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        # The loop holds tasks weakly.
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failing: set[str] = set()

    def keep(
        self,
        work: Callable[[], Coroutine[Any, Any, None]],
        name: str,
        *,
        may_end: bool = False,
    ) -> asyncio.Task[None]:
        """Run `work` until it is cancelled, and again after a pause if it fails.

        To return is a failure too, unless it `may_end`. A `CancelledError` that nobody requested
        is a failure. Stop it by `cancel_and_wait`.
        """
        return self._own(self._keep(work, name, may_end), name)

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Run a coroutine once; its failure is logged and counted, even if nobody awaits it."""
        return self._own(coroutine, name)

    def _own(self, coroutine: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        # One callback: each costs a turn of the loop, and packets that wait are tasks too.
        task.add_done_callback(self._on_done)
        return task

    async def _keep(
        self, work: Callable[[], Coroutine[Any, Any, None]], name: str, may_end: bool
    ) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE_SECONDS
        try:
            while True:
                started_at = loop.time()
                failure = await _run(work)
                if failure is None and may_end:
                    return
                if loop.time() - started_at > _STABLE_SECONDS:
                    pause = _FIRST_PAUSE_SECONDS
                self._report(name, failure)
                self._counters.add("tasks.restarted")
                self.failing.add(name)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE_SECONDS)
                self.failing.discard(name)
        finally:
            self.failing.discard(name)

    def _on_done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._report(task.get_name(), failure)

    def _report(self, name: str, failure: BaseException | None) -> None:
        self._counters.add("tasks.failed")
        logger.error(
            "background task %s",
            "ended" if failure is None else "failed",
            extra={"task": name},
            exc_info=failure,
        )


async def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> BaseException | None:
    """Run `work`; returns its failure. Raises only a requested cancellation."""
    task = asyncio.current_task()
    assert task is not None
    try:
        await work()
    except asyncio.CancelledError as stray:
        if task.cancelling():
            raise
        return stray
    except Exception as failure:
        return failure
    return None


async def run_foreign(
    coroutine: Coroutine[Any, Any, T], name: str, *, timeout_seconds: float | None = None
) -> T:
    """Run the application's coroutine in a task of its own; our handlers may run outside of tasks.

    Without a task, `asyncio.timeout` and whatever uses it would fail. Raises `TimeoutError` after
    the timeout, and `RuntimeError` if the coroutine was cancelled and we were not.
    """
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_seconds)
        if not done:
            raise TimeoutError
        if task.cancelled():
            raise RuntimeError(f"{name} was cancelled by the application")
        return task.result()
    finally:
        task.cancel()


async def run_until_first_ends(*coroutines: Coroutine[Any, Any, None], name: str) -> None:
    """Run coroutines concurrently until one ends, cancel the others, and raise the failure."""
    create_task = asyncio.get_running_loop().create_task
    tasks = [create_task(each, name=name) for each in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(*tasks)
    failures = [failure for each in tasks if not each.cancelled() and (failure := each.exception())]
    if failures:
        raise failures[0]


async def cancel_and_wait(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel repeatedly until all have ended: redis-py can swallow a cancel while it connects."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_CANCEL_RETRY_SECONDS)
