"""Apply network faults in an order that follows from a seed."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from tests.kit.network.tcp_proxy import Connection, Direction, Proxy
from tests.kit.patience import until


class Fault(StrEnum):
    """A fault of one connection or of the whole proxy."""

    CUT = "cut"
    RESET = "reset"
    CUT_IN_A_FRAME = "cut in a frame"
    BLACKHOLE = "blackhole"
    LOSS_OF_ONE_WAY = "loss of one way"
    HALF_CLOSE = "half-close"
    DELAY = "delay"
    THROTTLE = "throttle"
    REFUSE = "refuse"
    CUT_ALL = "cut all"


@dataclass(frozen=True, slots=True)
class Step:
    """One fault of a plan, with its parameters."""

    after_seconds: float
    fault: Fault
    duration_seconds: float
    # Selects the connection: a fraction of the list, from 0 to 1.
    target: float
    direction: Direction
    byte_count: int


def plan(
    seed: int | str,
    count: int,
    *,
    faults: Sequence[Fault] = tuple(Fault),
    pause_seconds: tuple[float, float] = (0.1, 0.5),
    duration_seconds: tuple[float, float] = (0.1, 0.5),
) -> list[Step]:
    """The steps of a seed; each fault occurs once before any repeats."""
    random = Random(seed)
    steps: list[Step] = []
    while len(steps) < count:
        steps += [
            Step(
                after_seconds=random.uniform(*pause_seconds),
                fault=fault,
                duration_seconds=random.uniform(*duration_seconds),
                target=random.random(),
                direction=random.choice(list(Direction)),
                byte_count=random.randint(1, 400),
            )
            for fault in random.sample(faults, len(faults))
        ]
    return steps[:count]


class Chaos:
    """Applies a plan to a proxy; waits for a connection if a fault needs one."""

    def __init__(self, proxy: Proxy, steps: Sequence[Step]) -> None:
        self.counts: Counter[Fault] = Counter()
        self._proxy = proxy
        self._steps = steps

    async def run(self) -> None:
        """Apply all steps in order, then restore the network."""
        try:
            for step in self._steps:
                await asyncio.sleep(step.after_seconds)
                await self._apply(step)
        finally:
            await self._proxy.accept()
            # A blackholed connection has lost data, and must not continue.
            self._proxy.reset_all()

    async def _apply(self, step: Step) -> None:
        proxy = self._proxy
        if step.fault is Fault.REFUSE:
            proxy.refuse()
            proxy.cut_all()
            await asyncio.sleep(step.duration_seconds)
            await proxy.accept()
        elif step.fault is Fault.CUT_ALL:
            proxy.cut_all()
        else:
            await until(lambda: bool(proxy.connections))
            connection = proxy.connections[int(step.target * len(proxy.connections))]
            await _apply_to(connection, step)
        self.counts[step.fault] += 1


async def _apply_to(connection: Connection, step: Step) -> None:
    match step.fault:
        case Fault.CUT:
            connection.cut()
        case Fault.RESET:
            connection.reset()
        case Fault.CUT_IN_A_FRAME:
            connection.cut_after(step.byte_count, step.direction)
        case Fault.BLACKHOLE:
            connection.blackhole()
        case Fault.LOSS_OF_ONE_WAY:
            connection.blackhole(step.direction)
        case Fault.HALF_CLOSE:
            connection.half_close(step.direction)
        case Fault.DELAY:
            connection.delay(step.duration_seconds / 10)
            await asyncio.sleep(step.duration_seconds)
            connection.delay(0)
        case Fault.THROTTLE:
            connection.throttle(step.byte_count * 100)
            await asyncio.sleep(step.duration_seconds)
            connection.throttle(0)
