"""Tests eager coroutines: a task only if they suspend, and `finally` always runs."""

import asyncio

import pytest

from server.transport import eager


async def test_coroutine_that_never_suspends_needs_no_task() -> None:
    seen: list[int] = []

    async def quick() -> None:
        seen.append(1)

    before = len(asyncio.all_tasks())
    assert eager.start(quick()) is None
    assert seen == [1]
    assert len(asyncio.all_tasks()) == before


async def test_task_resumes_a_suspended_coroutine() -> None:
    seen: list[str] = []
    gate: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def slow() -> None:
        seen.append("began")
        seen.append(await gate)
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            seen.append("ended")

    rest = eager.start(slow())
    assert rest is not None
    assert seen == ["began"]
    task = asyncio.get_running_loop().create_task(rest)
    gate.set_result("went on")
    await task
    assert seen == ["began", "went on", "ended"]


async def test_task_raises_an_error_after_the_suspension() -> None:
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def failing() -> None:
        await gate

    rest = eager.start(failing())
    assert rest is not None
    task = asyncio.get_running_loop().create_task(rest)
    gate.set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await task


async def test_start_raises_an_error_before_the_suspension() -> None:
    async def failing() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        eager.start(failing())


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_cancelled_task_runs_the_finally_block(turns: int) -> None:
    cleaned: list[bool] = []

    async def waiting() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    rest = eager.start(waiting())
    assert rest is not None
    task = asyncio.get_running_loop().create_task(rest)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [True]


async def test_suspended_coroutine_can_be_closed() -> None:
    cleaned: list[bool] = []

    async def waiting() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            cleaned.append(True)

    rest = eager.start(waiting())
    assert rest is not None
    rest.close()
    assert cleaned == [True]
    with pytest.raises(TypeError):
        rest.__await__()
