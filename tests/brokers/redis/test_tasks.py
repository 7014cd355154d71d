"""Cancellation of tasks that swallow a cancel."""

import asyncio
import contextlib

from server.brokers.redis.connection.tasks import cancel_and_wait


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
