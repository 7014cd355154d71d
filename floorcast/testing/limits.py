"""Drives shared limits for `SharedLimitsSuite`."""

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from floorcast.testing.clock import ManualClock
from server.core.errors import LimitError
from server.core.limits.keys import LimitKey
from server.ports import SharedLimits

ADDRESS: LimitKey = "192.0.2.1"
ANN: LimitKey = ("acme", "ann")


@dataclass(slots=True)
class LimitsNode:
    """The limits of one node."""

    limits: SharedLimits

    async def connect(self, count: int, key: LimitKey = ADDRESS) -> list[ErrorCode | None]:
        """Acquire this many connections concurrently; None for each success, or the error code."""
        return await asyncio.gather(*(self._connect(key) for _ in range(count)))

    async def _connect(self, key: LimitKey) -> ErrorCode | None:
        try:
            await self.limits.acquire(key)
        except LimitError as refusal:
            return refusal.code
        return None

    async def disconnect(self, count: int, key: LimitKey = ADDRESS) -> None:
        """Release this many connections and wait until the other nodes can have them."""
        for _ in range(count):
            self.limits.release(key)
        await self.wait_idle()

    async def wait_idle(self) -> None:
        """Override it to wait until this node has nothing left to report."""


class LimitsCluster:
    """Creates the nodes of a test; override `two_nodes`.

    Both nodes share their storage, and no other cluster does.
    """

    def __init__(self) -> None:
        self.clock = ManualClock()

    def two_nodes(
        self, *, connections: int, attempts_per_second: float = 0.0
    ) -> AbstractAsyncContextManager[tuple[LimitsNode, LimitsNode]]:
        """Run two nodes with `self.clock`, and these limits of every address and of every user.

        0 means no limit. `attempts_per_second` holds for addresses alone, and allows bursts of
        2 seconds' worth, at least one attempt.
        """
        raise NotImplementedError


def count_admitted(outcomes: Iterable[ErrorCode | None]) -> int:
    """Count the admitted; all others must be refused for too many connections."""
    found = list(outcomes)
    assert {*found} <= {None, ErrorCode.LIMIT_CONNECTIONS}
    return found.count(None)
