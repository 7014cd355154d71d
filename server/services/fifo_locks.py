"""One at a time for each name, in the order in which they came; where nobody is, nothing waits."""

import asyncio
from collections import deque

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError


class FifoLocks:
    """Who works at what, and who waits for it: a bounded number for each name."""

    def __init__(self, *, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    def __contains__(self, key: object) -> bool:
        return key in self._queues

    async def acquire(self, key: str) -> None:
        """Wait for the turn; whoever got it must `give` it back."""
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque()
            return
        if len(queue) >= self._max_waiting:
            raise LimitError(ErrorCode.SERVER_OVERLOADED, "too many wait for the same already")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # It came at the same moment: the next one has it.
                self.release(key)
            elif turn in queue:
                # Or it was passed over already.
                queue.remove(turn)
            raise

    def release(self, key: str) -> None:
        """The next may go on."""
        queue = self._queues[key]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._queues[key]
