"""Wait for a condition, with a limit that only a failing test reaches."""

import asyncio
from collections.abc import Awaitable, Callable

# A passing test may come close to this only on a busy machine.
MAX_WAIT_SECONDS = 40.0
_POLL_SECONDS = 0.001


async def until(condition: Callable[..., object]) -> None:
    """Wait until a condition holds; raise TimeoutError if it never does."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(_POLL_SECONDS)


async def until_awaited(condition: Callable[[], Awaitable[object]]) -> None:
    """Wait until a condition that must be awaited holds; raise TimeoutError if it never does."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not await condition():
            await asyncio.sleep(_POLL_SECONDS)
