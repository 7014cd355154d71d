"""FifoLocks: order, bounds and cancellation."""

import asyncio

import pytest

from server.core.errors import LimitError
from server.services.fifo_locks import FifoLocks


async def test_waiters_acquire_a_lock_in_order() -> None:
    locks, done = FifoLocks(max_waiting=10), []

    async def work(number: int) -> None:
        await locks.acquire("A")
        await asyncio.sleep(0)
        done.append(number)
        locks.release("A")

    await asyncio.gather(*map(work, range(5)))
    assert done == [0, 1, 2, 3, 4]
    assert "A" not in locks


async def test_locks_of_different_keys_are_independent() -> None:
    locks = FifoLocks(max_waiting=0)
    await locks.acquire("A")
    await locks.acquire("B")
    with pytest.raises(LimitError) as refused:
        await locks.acquire("A")
    assert refused.value.code == "server.overloaded"
    locks.release("A")
    await locks.acquire("A")


@pytest.mark.parametrize("released", ["first", "at the same moment", "later"])
async def test_cancelled_waiter_passes_the_lock_on(released: str) -> None:
    locks = FifoLocks(max_waiting=10)
    await locks.acquire("A")
    waiting = [asyncio.ensure_future(locks.acquire("A")) for _ in range(2)]
    await asyncio.sleep(0)
    if released == "first":
        locks.release("A")
        waiting[0].cancel()
    else:
        waiting[0].cancel()
        if released == "later":
            await asyncio.sleep(0)
        locks.release("A")
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert not waiting[1].cancelled()
    locks.release("A")
    assert "A" not in locks
