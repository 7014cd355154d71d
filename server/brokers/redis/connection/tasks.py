"""Cancels tasks reliably, including tasks that swallow a cancellation."""

import asyncio

_RETRY_SECONDS = 0.1


async def cancel_and_wait(*tasks: asyncio.Task[None]) -> None:
    """Cancel repeatedly until all have ended: redis-py can swallow a cancel while it connects."""
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_RETRY_SECONDS)
