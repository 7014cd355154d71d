"""A portal runs, cancels or refuses calls, and leaves no thread behind."""

import asyncio
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from client_sdk.errors import ClientClosed
from client_sdk.sync.portal import Portal, WouldDeadlock
from tests.kit.patience import MAX_WAIT_SECONDS


@pytest.fixture(name="portal")
def new_portal() -> Iterator[Portal]:
    portal = Portal("test-portal")
    yield portal
    portal.close()
    assert "test-portal" not in [each.name for each in threading.enumerate()]


async def add(one: int, two: int) -> int:
    await asyncio.sleep(0)
    return one + two


async def fail() -> None:
    raise ValueError("raised by a test")


class EndlessTask:
    """A coroutine that waits until cancelled, and signals its start and end."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cancelled = threading.Event()

    async def __call__(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


def test_call_returns_the_result_or_raises_the_error(portal: Portal) -> None:
    assert portal.call(add(1, 2)) == 3
    with pytest.raises(ValueError, match="raised by a test"):
        portal.call(fail())


def test_function_runs_on_the_loops_thread(portal: Portal) -> None:
    assert portal.run(lambda: threading.current_thread().name) == "test-portal"


async def test_portal_works_inside_a_running_loop(portal: Portal) -> None:
    assert portal.call(add(1, 2)) == 3


def test_ctrl_c_cancels_the_running_coroutine(portal: Portal) -> None:
    task = EndlessTask()
    main = threading.get_ident()

    def interrupt() -> None:
        task.began.wait()
        while sys._current_frames()[main].f_code is not threading.Condition.wait.__code__:
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        portal.call(task())
    interrupter.join()
    assert task.cancelled.wait(MAX_WAIT_SECONDS)
    assert portal.call(add(1, 2)) == 3, "the portal must still work"


def test_close_raises_in_a_waiting_thread(portal: Portal) -> None:
    task = EndlessTask()
    errors: list[Exception] = []

    def wait() -> None:
        try:
            portal.call(task())
        except ClientClosed as error:
            errors.append(error)

    other = threading.Thread(target=wait)
    other.start()
    task.began.wait()
    portal.close()
    other.join(MAX_WAIT_SECONDS)
    assert len(errors) == 1
    assert task.cancelled.is_set()


def test_closed_portal_refuses_calls(portal: Portal) -> None:
    portal.close()
    portal.close()
    with pytest.raises(ClientClosed):
        portal.call(add(1, 2))


@pytest.mark.parametrize("wait", [lambda portal: portal.call(add(1, 2)), Portal.close])
def test_blocking_call_on_the_portals_thread_raises(
    portal: Portal, wait: Callable[[Portal], object]
) -> None:
    with pytest.raises(WouldDeadlock):
        portal.run(lambda: wait(portal))
