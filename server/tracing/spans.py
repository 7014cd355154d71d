"""Spans of one message: `publish`, `broker.publish`, and a `fan-out` on each node.

A node that gets an entry from another one knows its position and nothing of its publisher. So the
trace of its fan-outs is derived from the position, the same on all nodes, and the span of the
broker links to it. In memory the fan-out happens inside the publish, and is part of its trace.
"""

import time
from collections.abc import Callable, Mapping
from hashlib import blake2b

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags

from client_sdk.contract import Stream
from server.core.errors import FloorcastError
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Entry, Position, Receipt, Reset
from server.core.log.idempotency import Claim
from server.delivery.context import Schedule
from server.ports import Broker, Clock, ignore
from server.services import PublishingConfig, PublishingService
from server.services.market.publishing import OnPublished

# What is delivered in one turn; further entries have no span.
_MAX_PENDING = 1_000
_FLUSH_MS = 3_000


class Spans:
    """Implements `Tracing` with the tracer of one provider."""

    def __init__(
        self, tracer: trace.Tracer, sampler: Sampler, close: Callable[[], object] | None = None
    ) -> None:
        self.tracer = tracer
        self._sampler = sampler
        self._close = close
        # Deliveries that are not written yet.
        self._fan_outs: list[Span] = []

    def trace_broker(self, broker: Broker) -> Broker:
        return TracedBroker(broker, self)

    def trace_publishing(
        self,
        config: PublishingConfig,
        broker: Broker,
        clock: Clock,
        on_published: OnPublished,
        on_evicted: Callable[[str], None],
    ) -> PublishingService:
        return TracedPublishing(config, broker, clock, on_published, on_evicted, self.tracer)

    def trace_flushes(self, schedule: Schedule, has_pending: Callable[[], bool]) -> Schedule:
        def traced(call: Callable[[], None], seconds: float) -> object:
            def run() -> None:
                call()
                if self._fan_outs and not has_pending():
                    self._end_fan_outs()

            return schedule(run, seconds)

        return traced

    def begin_fan_out(self, entry: Entry) -> None:
        """Begin the span of a delivery; in the current trace, or in that of its position."""
        if len(self._fan_outs) >= _MAX_PENDING:
            return
        context = None
        if not trace.get_current_span().get_span_context().is_valid:
            parent = position_context(entry.channel, entry.position)
            sampled = self._sampler.should_sample(None, parent.trace_id, "fan-out")
            if sampled.decision is Decision.DROP:
                return
            context = trace.set_span_in_context(NonRecordingSpan(parent))
        span = self.tracer.start_span(
            "fan-out", context, attributes=_attributes(entry.channel, entry.position)
        )
        self._fan_outs.append(span)

    def _end_fan_outs(self) -> None:
        ended, self._fan_outs = self._fan_outs, []
        now = time.time_ns()
        for span in ended:
            span.end(now)

    def close(self) -> None:
        self._end_fan_outs()
        if self._close is not None:
            self._close()


class TracedBroker:
    """A broker whose `publish` has a span, and whose deliveries begin one."""

    def __init__(self, broker: Broker, spans: Spans) -> None:
        self._broker = broker
        self._spans = spans
        # Bound methods: all others are those of the broker.
        self.stop, self.find, self.head = broker.stop, broker.find, broker.head
        self.latest, self.is_rolled_back = broker.latest, broker.is_rolled_back
        self.since, self.before, self.forget = broker.since, broker.before, broker.forget
        self.add_topic, self.watch, self.unwatch = broker.add_topic, broker.watch, broker.unwatch

    async def start(
        self,
        deliver: Callable[[Entry], None],
        *,
        on_reset: Callable[[Reset], None] = ignore,
        on_state: Callable[[bool], None] = ignore,
    ) -> None:
        def traced(entry: Entry) -> None:
            self._spans.begin_fan_out(entry)
            deliver(entry)

        await self._broker.start(traced, on_reset=on_reset, on_state=on_state)

    async def publish(
        self,
        channel: str,
        data: bytes,
        ts_ms: int,
        *,
        kind: str = "update",
        claim: Claim | None = None,
        full_state: Callable[[], bytes] | None = None,
        in_history: bool = False,
        expected_head: Position | None = None,
        owner: Owner = SERVER,
    ) -> Receipt:
        with self._spans.tracer.start_as_current_span("broker.publish") as span:
            receipt = await self._broker.publish(
                channel,
                data,
                ts_ms,
                kind=kind,
                claim=claim,
                full_state=full_state,
                in_history=in_history,
                expected_head=expected_head,
                owner=owner,
            )
            span.set_attributes(_attributes(channel, receipt.position))
            span.add_link(position_context(channel, receipt.position))
            return receipt


class TracedPublishing(PublishingService):
    """Publishes each message in a span; a refusal has its code, and never the data."""

    def __init__(
        self,
        config: PublishingConfig,
        broker: Broker,
        clock: Clock,
        on_published: OnPublished,
        on_evicted: Callable[[str], None],
        tracer: trace.Tracer,
    ) -> None:
        super().__init__(config, broker, clock, on_published, on_evicted)
        self._tracer = tracer

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
        identifier: str | None = None,
        owner: Owner = SERVER,
        source_ts: int | None = None,
    ) -> Position:
        with self._tracer.start_as_current_span("publish", record_exception=False) as span:
            span.set_attributes({"floorcast.topic": topic[:80], "floorcast.kind": kind})
            try:
                return await super().publish(
                    topic,
                    data,
                    kind=kind,
                    user=user,
                    org=org,
                    identifier=identifier,
                    owner=owner,
                    source_ts=source_ts,
                )
            except FloorcastError as error:
                span.set_attribute("floorcast.error", error.code.value)
                raise


def open_spans(sample_ratio: float) -> Spans:
    """Spans of the application's provider, or of our own, which exports by OTLP.

    `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin say where to.
    """
    sampler = TraceIdRatioBased(sample_ratio)
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        return Spans(provider.get_tracer("floorcast"), sampler)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    own = TracerProvider(sampler=ParentBasedTraceIdRatio(sample_ratio))
    own.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))

    def close() -> None:
        own.force_flush(_FLUSH_MS)
        own.shutdown()

    return Spans(own.get_tracer("floorcast"), sampler, close)


def position_context(channel: str, position: Position) -> SpanContext:
    """The context of all fan-outs of one entry, the same on every node."""
    name = f"{channel}\0{position.epoch}\0{position.seq}".encode()
    digest = blake2b(name, digest_size=24).digest()
    return SpanContext(
        int.from_bytes(digest[:16]),
        int.from_bytes(digest[16:]),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )


def _attributes(channel: str, position: Position) -> dict[str, str | int]:
    return {
        "floorcast.topic": _public_name(channel),
        "floorcast.epoch": position.epoch,
        "floorcast.seq": position.seq,
    }


def _public_name(channel: str) -> str:
    """The topic of a channel without its user; "session" for a session or a room."""
    stream, colon, _ = channel.partition(":")
    if colon and stream in Stream.__members__:
        return channel
    private = channel.partition("@")[0]
    return private if private in Stream.__members__ else "session"
