"""How long a test waits for what should simply happen: the wait ends with the event."""

import asyncio
from collections.abc import Callable

# Nobody waits so long where all is well; a machine that is busy with something else may.
MAX_WAIT_SECONDS = 40.0


async def until(condition: Callable[..., object]) -> None:
    """Wait until something is so; fails the test when it never is."""
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        while not condition():
            await asyncio.sleep(0)
