"""Gates of a cluster: each node counts with the others who has come in."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from client_sdk.contract import ErrorCode
from server.brokers import RedisAssembly, RedisPlaces
from server.core.errors import LimitError
from server.core.limits.keys import Holder, Quota, Quotas
from tests.kit.rigs.presence_cluster import Hall, Quarter

ADDRESS: Holder = "192.0.2.1"
ANN: Holder = ("acme", "ann")
SEVEN = Quotas(Quota(7), Quota(7))


@dataclass(slots=True)
class Gate:
    """One node: what it has of the places of all."""

    hall: Hall
    places: RedisPlaces

    async def come(self, count: int, holder: Holder = ADDRESS) -> list[ErrorCode | None]:
        """So many come at once; who is refused has a code."""
        return await asyncio.gather(*(self._come(holder) for _ in range(count)))

    async def _come(self, holder: Holder) -> ErrorCode | None:
        try:
            await self.places.take(holder)
        except LimitError as refusal:
            return refusal.code
        return None

    async def go(self, count: int, holder: Holder = ADDRESS) -> None:
        """So many go, and the others know of it."""
        for _ in range(count):
            self.places.give(holder)
        await self.quiet()

    async def quiet(self) -> None:
        """Wait until everything that this node has to say was said."""
        await self.hall.quiet()
        await self.hall.until(lambda: not self.places._on_their_way)

    @property
    def local(self) -> int:
        """How many were let in by this node alone."""
        return self.hall.counters.total("limits.local")


def gate(
    quarter: Quarter, hall: Hall, quotas: Quotas = SEVEN, *, patience_seconds: float = 5.0
) -> Gate:
    """The gate of a node that is up."""
    assert isinstance(hall.assembly, RedisAssembly)
    places = RedisPlaces(
        quarter.clock,
        hall.counters,
        quotas,
        hall.assembly,
        prefix=quarter.prefix,
        patience_seconds=patience_seconds,
    )
    return Gate(hall, places)


async def pass_time(quarter: Quarter, seconds: float, *gates: Gate) -> None:
    """Let time pass in steps that every node sees."""
    while seconds > 0:
        quarter.clock.advance(min(seconds, 1.0))
        seconds -= 1.0
        for each in gates:
            await each.quiet()


def free(outcomes: Iterable[ErrorCode | None]) -> int:
    """How many found a place; all others are refused as too many."""
    found = list(outcomes)
    assert {*found} <= {None, ErrorCode.LIMIT_CONNECTIONS}
    return found.count(None)
