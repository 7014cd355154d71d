"""Taking turns: in order, bounded, and handed on by whoever gives up."""

import asyncio

import pytest

from server.core.errors import LimitError
from server.services.fifo_locks import FifoLocks


async def test_everybody_has_their_turn_in_the_order_in_which_they_came() -> None:
    turns, done = FifoLocks(max_waiting=10), []

    async def work(number: int) -> None:
        await turns.acquire("A")
        await asyncio.sleep(0)
        done.append(number)
        turns.release("A")

    await asyncio.gather(*map(work, range(5)))
    assert done == [0, 1, 2, 3, 4]
    assert "A" not in turns


async def test_nobody_waits_for_another_name() -> None:
    turns = FifoLocks(max_waiting=0)
    await turns.acquire("A")
    await turns.acquire("B")
    with pytest.raises(LimitError) as refused:
        await turns.acquire("A")
    assert refused.value.code == "server.overloaded"
    turns.release("A")
    await turns.acquire("A")


@pytest.mark.parametrize("given", ["first", "at the same moment", "later"])
async def test_who_gives_up_holds_nobody_up(given: str) -> None:
    turns = FifoLocks(max_waiting=10)
    await turns.acquire("A")
    waiting = [asyncio.ensure_future(turns.acquire("A")) for _ in range(2)]
    await asyncio.sleep(0)
    if given == "first":
        turns.release("A")
        waiting[0].cancel()
    else:
        waiting[0].cancel()
        if given == "later":
            await asyncio.sleep(0)
        turns.release("A")
    await asyncio.wait(waiting)
    assert waiting[0].cancelled()
    assert not waiting[1].cancelled()
    turns.release("A")
    assert "A" not in turns
