"""Background tasks: cancellation, failures, restarts and their pauses."""

import asyncio
import contextlib
import itertools

import pytest

from server.core.counters import Counters
from server.tasks import TaskOwner, cancel_and_wait, run_foreign, run_until_first_ends
from tests.kit.virtual_loop import run


async def test_task_that_swallows_a_cancel_is_cancelled_again() -> None:
    swallowed = 0

    async def work() -> None:
        nonlocal swallowed
        while swallowed < 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            swallowed += 1
        await asyncio.sleep(60)

    stubborn = asyncio.create_task(work())
    other = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_and_wait(stubborn, other)
    assert (stubborn.cancelled(), other.cancelled(), swallowed) == (True, True, 2)


async def test_cancelling_no_tasks_is_a_no_op() -> None:
    await cancel_and_wait()


class Work:
    """Ends in the given ways, one for each run, then runs for ever."""

    def __init__(self, *endings: BaseException | None) -> None:
        self._endings = list(endings)
        self.started_at: list[float] = []

    async def run(self) -> None:
        self.started_at.append(asyncio.get_running_loop().time())
        if not self._endings:
            await asyncio.Event().wait()
        ending = self._endings.pop(0)
        if ending is not None:
            raise ending


def logged_tasks(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, bool]]:
    """The message, the task and whether there is a traceback, of each log line."""
    return [(each.message, each.task, bool(each.exc_info)) for each in caplog.records]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("ending", "message"),
    [
        (AttributeError("'NoneType' has no attribute 'writelines'"), "background task failed"),
        (ExceptionGroup("several", [OSError()]), "background task failed"),
        (asyncio.CancelledError(), "background task failed"),
        (None, "background task ended"),
    ],
)
def test_task_that_ends_is_logged_counted_and_restarted(
    caplog: pytest.LogCaptureFixture, ending: BaseException | None, message: str
) -> None:
    counters, work = Counters(), Work(ending)

    async def main() -> None:
        tasks = TaskOwner(counters)
        kept = tasks.keep(work.run, "work")
        await asyncio.sleep(0.01)
        assert tasks.failing == {"work"}
        await asyncio.sleep(1)
        assert tasks.failing == set()
        assert not kept.done()
        await cancel_and_wait(kept)

    run(main())
    assert len(work.started_at) == 2
    assert logged_tasks(caplog) == [(message, "work", ending is not None)]
    assert counters.total("tasks.failed") == counters.total("tasks.restarted") == 1


def test_pauses_before_restarts_grow_up_to_a_limit() -> None:
    work = Work(*(OSError() for _ in range(10)))

    async def main() -> None:
        kept = TaskOwner(Counters()).keep(work.run, "work")
        await asyncio.sleep(60)
        await cancel_and_wait(kept)

    run(main())
    pauses = [round(b - a, 3) for a, b in itertools.pairwise(work.started_at)]
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


def test_task_that_may_end_is_not_restarted(caplog: pytest.LogCaptureFixture) -> None:
    work = Work(None)

    async def main() -> None:
        await TaskOwner(Counters()).keep(work.run, "work", may_end=True)

    run(main())
    assert (len(work.started_at), caplog.records) == (1, [])


def test_failure_of_a_task_that_runs_once_is_logged_though_nobody_awaits_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counters, work = Counters(), Work(OSError())

    async def main() -> None:
        TaskOwner(counters).start(work.run(), "once")
        await asyncio.sleep(1)

    run(main())
    assert logged_tasks(caplog) == [("background task failed", "once", True)]
    assert (counters.total("tasks.failed"), counters.total("tasks.restarted")) == (1, 0)


def test_first_of_several_to_fail_cancels_the_others() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(ConnectionError):
        run(run_until_first_ends(wait(), Work(ConnectionError()).run(), name="several"))
    assert ended == ["cancelled"]


async def test_foreign_coroutine_is_cancelled_after_its_timeout() -> None:
    ended = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await run_foreign(hang(), "hanging", timeout_seconds=0.001)
    await ended.wait()


async def test_foreign_coroutine_that_cancels_itself_has_failed() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="cancelled by the application"):
        await run_foreign(cancel_itself(), "stray")
