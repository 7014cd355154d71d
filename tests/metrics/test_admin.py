"""Tests the admin listener: metrics of a server in the process, and health with its reasons."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pytest_aiohttp.plugin import AiohttpClient

from client_sdk.contract import Scope
from floorcast.server import admin_app
from server.access import mint
from server.app import SERVER, create_app
from server.measuring import report
from server.metrics import METRICS, Report, Reports, Samples, create_admin_app
from server.server import Server, SystemClock
from server.settings import load_settings
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until

SECRET = "a secret for tests that is long enough to be one"
PRICE = {"bid": "1.00", "ask": "1.02", "last": "1.01", "volume": "5"}


class AdminRig:
    """A server and its admin listener."""

    def __init__(
        self, server: Server, port: int, admin: "TestClient[web.Request, web.Application]"
    ) -> None:
        self.server = server
        self.port = port
        self._admin = admin

    @staticmethod
    async def create(aiohttp_client: AiohttpClient, **settings: object) -> "AdminRig":
        flags = {"auth.secret": SECRET} | {
            key.replace("__", "."): value for key, value in settings.items()
        }
        app = create_app(load_settings(flags=flags))
        public = await aiohttp_client(app)
        assert public.port is not None

        return AdminRig(app[SERVER], public.port, await aiohttp_client(admin_app(app)))

    def token(self) -> str:
        return mint(
            SECRET,
            subject="ann",
            scopes=[Scope.MARKET_READ],
            clock=SystemClock(),
            ttl_seconds=3600,
        )

    async def value(self, name: str, **labels: str) -> float | None:
        """The value of one series; None if there is none."""
        response = await self._admin.get("/metrics")
        assert response.status == 200
        for family in text_string_to_metric_families(await response.text()):
            for sample in family.samples:
                if sample.name == name and sample.labels == {**labels, "worker": "0"}:
                    return sample.value
        return None


async def test_refused_tokens_are_counted_by_their_code(aiohttp_client: AiohttpClient) -> None:
    rig = await AdminRig.create(aiohttp_client)
    for _ in range(3):
        client = await RawClient.open(rig.port)
        await client.text()
        client.send('40/market,{"token":"rubbish"}')
        assert "auth.invalid" in await client.text()
        client.cut()
    assert await rig.value("floorcast_clients_refused_total", code="auth.invalid") == 3


async def test_deliveries_are_counted_once_for_each_recipient(
    aiohttp_client: AiohttpClient,
) -> None:
    rig = await AdminRig.create(aiohttp_client)
    clients = [await RawClient.connect(rig.port, rig.token()) for _ in range(2)]
    for client in clients:
        await client.call("subscribe", {"topics": ["PRICE:A"]})
    await rig.server.market.publishing.publish("PRICE:A", PRICE)
    sizes = []
    for client in clients:
        _, body = await client.event()
        assert body["seq"] == 1
        sizes.append(body)
    assert await rig.value("floorcast_delivery_messages_total") == 2
    assert await rig.value("floorcast_delivery_writes_total") == 2
    assert (await rig.value("floorcast_delivery_bytes_total") or 0) > 2 * 100
    labels = {"stream": "PRICE", "interval_ms": "0"}
    assert await rig.value("floorcast_delivery_age_seconds_count", **labels) == 2
    assert await rig.value("floorcast_delivery_flush_seconds_count") == 1
    assert await rig.value("floorcast_clients_joined", namespace="/market") == 2
    subscribes = {"namespace": "/market", "event": "subscribe"}
    assert await rig.value("floorcast_events_ack_seconds_count", **subscribes) == 2
    for client in clients:
        client.cut()
    await until(lambda: not len(rig.server.clients.registry))
    left = {"namespace": "/market", "reason": "transport close"}
    assert await rig.value("floorcast_clients_left_total", **left) == 2


@pytest.mark.behaviour("D48")
async def test_health_of_connections_shows_in_metrics(aiohttp_client: AiohttpClient) -> None:
    rig = await AdminRig.create(
        aiohttp_client, ping__interval_seconds=0.05, ping__timeout_seconds=0.05
    )
    client = await RawClient.connect(rig.port, rig.token())
    assert await rig.value("floorcast_server_ready") == 1
    assert await rig.value("floorcast_connections_open", transport="websocket") == 1
    # It answers no ping.
    await until(lambda: not len(rig.server.clients.registry))
    left = {"namespace": "/market", "reason": "did not answer a ping"}
    assert await rig.value("floorcast_clients_left_total", **left) == 1
    assert await rig.value("floorcast_clients_joined", namespace="/market") == 0
    await client.close()


async def test_merged_messages_of_an_interval_are_counted(aiohttp_client: AiohttpClient) -> None:
    rig = await AdminRig.create(aiohttp_client)
    client = await RawClient.connect(rig.port, rig.token())
    await client.call("subscribe", {"topics": ["PRICE:A"], "interval_ms": 1000})
    hub = rig.server.delivery.hub
    merged = 0
    while merged < 2:
        for _ in range(3):
            await rig.server.market.publishing.publish("PRICE:A", PRICE)
        _, body = await client.event()
        merged = body["merged"]
    counted = await rig.value("floorcast_delivery_merged_total", cause="interval")
    assert counted == hub.channels()[0].state.position.seq - hub.delivered
    client.cut()


async def test_every_value_has_an_entry_in_the_catalogue(aiohttp_client: AiohttpClient) -> None:
    rig = await AdminRig.create(aiohttp_client, feed__name="simulated")
    client = await RawClient.connect(rig.port, rig.token())
    await client.call("subscribe", {"topics": ["PRICE:BTCUSDT"]})
    await client.event()
    labels_of = {metric.name: len(metric.labels) for metric in METRICS}
    for name, values in report(rig.server).samples.values.items():
        assert {len(labels) for labels, _ in values} == {labels_of[name]}, name
    client.cut()


async def test_report_survives_json(aiohttp_client: AiohttpClient) -> None:
    rig = await AdminRig.create(aiohttp_client)
    own = report(rig.server)
    assert Report.parse(own.body()) == own


async def test_admin_health_names_the_obstacles(aiohttp_client: AiohttpClient) -> None:
    reports = {
        "0": Report(Samples(), []),
        "1": Report(Samples(), ["does not answer"], is_up=False),
    }

    async def read() -> Reports:
        return reports

    admin = await aiohttp_client(create_admin_app(read))
    response = await admin.get("/health/ready")
    assert response.status == 503
    assert (await response.json())["workers"] == {"0": [], "1": ["does not answer"]}
    reports["1"] = Report(Samples(), ["the feed exchange is not live"])
    response = await admin.get("/health/ready")
    assert (await response.json())["workers"]["1"] == ["the feed exchange is not live"]
    reports["1"] = Report(Samples(), [])
    assert (await admin.get("/health/ready")).status == 200
    assert (await admin.get("/health/live")).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/health/ready", "/nothing"])
async def test_loopback_listener_serves_local_names_only(
    aiohttp_client: AiohttpClient, path: str
) -> None:
    async def read() -> Reports:
        return {}

    admin = await aiohttp_client(create_admin_app(read))
    for host in ("evil.example", "evil.example:9000", "127.0.0.1.evil.example", ""):
        assert (await admin.get(path, headers={"Host": host})).status == 403
    for host in ("localhost", "127.0.0.1:9000", "[::1]:9000"):
        assert (await admin.get(path, headers={"Host": host})).status != 403


async def test_hanging_scrapes_are_bounded(aiohttp_client: AiohttpClient) -> None:
    is_answered = asyncio.Event()

    async def read() -> Reports:
        await is_answered.wait()
        return {}

    admin = await aiohttp_client(create_admin_app(read))
    hanging = [asyncio.create_task(admin.get("/metrics")) for _ in range(20)]
    done, _ = await asyncio.wait(hanging, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result().status for task in done} == {503}
    is_answered.set()
    statuses = sorted([(await each).status for each in hanging])
    assert statuses == [200] * 8 + [503] * 12
    assert (await admin.get("/metrics")).status == 200


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/plain", "text/plain; version="),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version="),
        ("*/*;q=rubbish", "text/plain"),
    ],
)
async def test_scraper_gets_the_format_it_accepts(
    aiohttp_client: AiohttpClient, accept: str, content_type: str
) -> None:
    samples = Samples()
    samples.add("floorcast_clients_refused_total", 1, 'a "code"\nof two lines')

    async def read() -> Reports:
        return {"0": Report(samples, [])}

    admin = await aiohttp_client(create_admin_app(read))
    response = await admin.get("/metrics", headers={"Accept": accept})
    assert response.status == 200
    assert response.headers["Content-Type"].startswith(content_type)
    assert 'code="a \\"code\\"\\nof two lines"' in await response.text()


async def test_canary_checks_topics_of_a_running_server(aiohttp_client: AiohttpClient) -> None:
    rig = await AdminRig.create(aiohttp_client, feed__name="simulated", admin__canary_topics=2)
    await until(lambda: rig.server.counters.total("canary.messages") > 5)
    assert await rig.value("floorcast_canary_topics") in (1, 2)
    assert (await rig.value("floorcast_canary_age_seconds_count") or 0) > 0
    for fault in ("gaps", "duplicates", "reorders", "checksum_errors"):
        assert await rig.value(f"floorcast_canary_{fault}_total") == 0


async def test_server_without_a_canary_shows_no_faults(aiohttp_client: AiohttpClient) -> None:
    rig = await AdminRig.create(aiohttp_client)
    assert await rig.value("floorcast_canary_topics") == 0
    assert await rig.value("floorcast_canary_gaps_total") is None
