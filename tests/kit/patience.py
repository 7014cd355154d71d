"""Wait for a condition, with a limit that only a failing test reaches."""

import asyncio
from collections.abc import Callable

# A passing test may come close to this only on a busy machine.
MAX_WAIT_SECONDS = 40.0
_SPINS = 1000
_POLL_SECONDS = 0.001


async def until(condition: Callable[..., object]) -> None:
    """Wait until a condition holds; raise TimeoutError if it never does.

    Most conditions hold within a few loop turns, so it spins first. Then it sleeps, so that
    threads, processes and a virtual clock can proceed.
    """
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        spins = 0
        while not condition():
            await asyncio.sleep(0 if spins < _SPINS else _POLL_SECONDS)
            spins += 1
