"""Tests the spans of a message, from publishing to the fan-out."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, TraceIdRatioBased
from pytest_aiohttp.plugin import AiohttpClient

from client_sdk.contract import Scope
from server.access import ConfigurationError, mint
from server.app import SERVER, create_app
from server.brokers import MemoryBroker
from server.core.errors import FloorcastError
from server.core.log.entries import Entry, Position
from server.server import Server, SystemClock
from server.settings import load_settings
from server.tracing import open_tracing
from server.tracing.spans import Spans, position_context
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until

SECRET = "a secret for tests that is long enough to be one"
PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}
ROOT = Path(__file__).parent.parent.parent


class TracedServer:
    """A server whose spans are kept."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ALWAYS_ON)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.spans = Spans(provider.get_tracer("floorcast"), ALWAYS_ON)

    async def start(self, aiohttp_client: AiohttpClient) -> tuple[Server, int]:
        with patch("server.server.open_tracing", lambda _: self.spans):
            app = create_app(load_settings(flags={"auth.secret": SECRET}))
        client = await aiohttp_client(app)
        assert client.port is not None
        return app[SERVER], client.port

    def by_name(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


async def test_publish_broker_and_fan_out_are_one_trace(aiohttp_client: AiohttpClient) -> None:
    traced = TracedServer()
    server, port = await traced.start(aiohttp_client)
    token = mint(
        SECRET, subject="ann", scopes=[Scope.MARKET_READ], clock=SystemClock(), ttl_seconds=60
    )
    client = await RawClient.connect(port, token)
    await client.call("subscribe", {"topics": ["PRICE:A"]})
    position = await server.market.publishing.publish("PRICE:A", PRICE)
    assert "fan-out" not in traced.by_name(), "the message is not written yet"
    assert (await client.event())[1]["seq"] == 1
    await until(lambda: "fan-out" in traced.by_name())
    spans = traced.by_name()
    publish, broker, fan_out = (spans[name] for name in ("publish", "broker.publish", "fan-out"))
    assert publish.parent is None
    assert broker.parent is not None
    assert fan_out.parent is not None
    assert (broker.parent.span_id, fan_out.parent.span_id) == (
        publish.context.span_id,
        broker.context.span_id,
    )
    assert fan_out.attributes == {
        "floorcast.topic": "PRICE:A",
        "floorcast.epoch": position.epoch,
        "floorcast.seq": 1,
    }
    assert [link.context for link in broker.links] == [position_context("PRICE:A", position)]
    client.cut()


async def test_refused_message_leaves_its_code_and_no_data(aiohttp_client: AiohttpClient) -> None:
    traced = TracedServer()
    server, _ = await traced.start(aiohttp_client)
    with pytest.raises(FloorcastError):
        await server.market.publishing.publish("PRICE:A", {"last": "confidential"})
    [span] = traced.exporter.get_finished_spans()
    assert span.attributes is not None
    assert span.attributes["floorcast.error"] == "request.invalid"
    assert not span.status.is_ok
    assert "confidential" not in span.to_json()


async def test_span_of_a_private_topic_names_no_user(aiohttp_client: AiohttpClient) -> None:
    traced = TracedServer()
    server, _ = await traced.start(aiohttp_client)
    await server.market.publishing.publish("ORDER_UPDATES", {"order_id": "1"}, user="ann")
    for span in traced.exporter.get_finished_spans():
        assert span.attributes is not None
        assert span.attributes["floorcast.topic"] == "ORDER_UPDATES"
        assert "ann" not in span.to_json()


def test_fan_outs_of_all_nodes_are_in_the_trace_of_the_position() -> None:
    entry = Entry("PRICE:A", Position("e1", 7), 0, b"{}")
    nodes = [TracedServer(), TracedServer()]
    for node in nodes:
        node.spans.begin_fan_out(entry)
        node.spans.close()
    contexts = [node.by_name()["fan-out"].parent for node in nodes]
    assert contexts == [position_context("PRICE:A", entry.position)] * 2
    assert contexts[0] != position_context("PRICE:A", Position("e1", 8))


def test_same_share_of_fan_outs_is_sampled_on_all_nodes() -> None:
    sampled = []
    for _ in range(2):
        node = TracedServer()
        node.spans._sampler = TraceIdRatioBased(0.25)
        for seq in range(400):
            node.spans.begin_fan_out(Entry("PRICE:A", Position("e1", seq), 0, b"{}"))
        node.spans.close()
        finished = node.exporter.get_finished_spans()
        sampled.append({span.attributes["floorcast.seq"] for span in finished if span.attributes})
    assert sampled[0] == sampled[1]
    assert 50 < len(sampled[0]) < 150


async def test_server_without_tracing_has_no_traced_part(aiohttp_client: AiohttpClient) -> None:
    server = create_app(load_settings(flags={"auth.secret": SECRET}))[SERVER]
    assert open_tracing(0) is None
    assert type(server.backend.broker) is MemoryBroker


def test_server_without_tracing_does_not_import_it() -> None:
    code = "import sys, server.cli; sys.exit('server.tracing.spans' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_tracing_without_its_extra_says_what_to_install() -> None:
    missing = patch.dict(sys.modules, {"server.tracing.spans": None})
    with missing, pytest.raises(ConfigurationError, match="floorcast\\[otel\\]"):
        open_tracing(0.1)
