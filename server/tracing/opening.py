"""Opens the tracing of one server, if it is on."""

from collections.abc import Callable
from typing import Protocol

from server.access import ConfigurationError
from server.delivery.context import Schedule
from server.ports import Broker, Clock
from server.services import PublishingConfig, PublishingService
from server.services.market.publishing import OnPublished


class Tracing(Protocol):
    """Replaces the parts that are traced; without tracing none is replaced."""

    def trace_broker(self, broker: Broker) -> Broker:
        """A broker with a span for each publish and each delivery."""

    def trace_publishing(
        self,
        config: PublishingConfig,
        broker: Broker,
        clock: Clock,
        on_published: OnPublished,
        on_evicted: Callable[[str], None],
    ) -> PublishingService:
        """A service with a span for each message."""

    def trace_flushes(self, schedule: Schedule, has_pending: Callable[[], bool]) -> Schedule:
        """Ends the spans of deliveries once everything pending is written."""

    def close(self) -> None:
        """Export what is left, within a few seconds."""


def open_tracing(sample_ratio: float) -> Tracing | None:
    """The tracing of this share of all traces; None for a share of 0.

    Raises `ConfigurationError` if the extra is not installed.
    """
    if not sample_ratio:
        return None
    try:
        from server.tracing.spans import open_spans
    except ImportError:
        raise ConfigurationError(
            "tracing.sample_ratio: needs OpenTelemetry: pip install 'floorcast[otel]'"
        ) from None
    return open_spans(sample_ratio)
