"""The limits of delivery, and what all its parts share."""

from collections.abc import Callable
from dataclasses import dataclass

from server.core.counters import Counters
from server.core.recovery.offsets import Offsets
from server.delivery.deferred_close import DeferredClose
from server.delivery.sliced_writes import SlicedWrites
from server.delivery.traffic import Traffic
from server.ports import Clock

# Calls back after that many seconds; 0 is the end of this turn of the loop.
Schedule = Callable[[Callable[[], None], float], object]


@dataclass(frozen=True, slots=True)
class DeliveryConfig:
    """Limits of buffering and recovery per client."""

    buffer_bytes: int = 256 * 1024
    stalled_seconds: float = 30.0
    # How long entries wait under load, so that one write carries several; 0 never.
    join_seconds: float = 0.005
    # How many links are written to at most before the loop serves others.
    max_slice_writes: int = 4096
    # Whether clients may resume, and how many writes of a topic are remembered for that.
    recoverable: bool = False
    backlog_messages: int = 1000

    @property
    def max_batch_bytes(self) -> int:
        """The bound of one write: a quarter of the buffer, so that one more still fits."""
        return self.buffer_bytes // 4


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """What the parts of one hub share."""

    config: DeliveryConfig
    clock: Clock
    counters: Counters
    schedule: Schedule
    offsets: Offsets
    deferred_close: DeferredClose
    writes: SlicedWrites
    traffic: Traffic

    @staticmethod
    def create(
        config: DeliveryConfig,
        clock: Clock,
        counters: Counters,
        schedule: Schedule,
        offsets: Offsets | None,
    ) -> "DeliveryContext":
        """Create what the parts share; without offsets, those of a node that never resumes."""
        deferred_close = DeferredClose()
        writes = SlicedWrites(
            clock,
            schedule,
            deferred_close,
            max_writes=config.max_slice_writes,
        )
        traffic = Traffic(counters)
        shared = (offsets or Offsets("0000"), deferred_close, writes, traffic)
        return DeliveryContext(config, clock, counters, schedule, *shared)
