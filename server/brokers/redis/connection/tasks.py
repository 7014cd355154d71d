"""Ends tasks for good, also those that a cancel has passed by."""

import asyncio

_RETRY_SECONDS = 0.1


async def cancel_and_wait(*tasks: asyncio.Task[None]) -> None:
    """Cancel them until they have ended: redis-py may swallow one that comes as it connects."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_RETRY_SECONDS)
