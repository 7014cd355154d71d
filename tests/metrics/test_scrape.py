"""A scrape of a busy node has every documented metric, and nothing else."""

from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from server.measuring import report
from server.metrics import METRICS, Reports, create_admin_app
from tests.kit.clients.recovering import RecoveringClient, market_client, publish_trades
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.in_process import PRICE
from tests.kit.server.nodes import Node, nodes
from tests.kit.server.webhook import SECRET, Webhook, webhook

# The supervisor's own, which `tests/workers` scrapes.
OF_SUPERVISOR = {"floorcast_workers_died_total", "floorcast_workers_hung_total"}
OF_ANY_NODE = (
    "floorcast_hooks_events_total",
    "floorcast_wills_published_total",
    "floorcast_wills_refused_total",
)
Series = dict[tuple[str, ...], float]


async def scrape(node: Node) -> dict[str, Series]:
    """The values of all metrics by their labels, without the worker's."""

    async def read() -> Reports:
        return {"0": report(node.server)}

    async with TestClient(TestServer(create_admin_app(read))) as http:
        page = await (await http.get("/metrics")).text()
    found: dict[str, Series] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = tuple(value for name, value in sample.labels.items() if name != "worker")
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


async def ask_webhook(hook: Webhook, node: Node) -> RawClient:
    """Get one answer of each kind from the authorize webhook."""
    client = await RawClient.connect(node.port, node.token("bob"))
    hook.answer = {"allow": True, "ttl_seconds": 60}
    for _ in range(2):
        await client.call("subscribe", {"topics": ["PRICE:B"]})
    hook.answer = {"allow": False}
    await client.call("subscribe", {"topics": ["PRICE:C"]})
    hook.status = 500
    await client.call("subscribe", {"topics": ["PRICE:D"]})
    hook.status, hook.answer = 200, {"allow": True}
    return client


async def die_with_a_will(node: Node) -> None:
    """Leave a will of two messages, one of which cannot be published any more."""
    client = RecoveringClient(node, "eve", "/market")
    await client.connect()
    other = {**PRICE, "volume": "6"}
    messages = [{"topic": f"PRICE:{each}", "data": PRICE, "id": each} for each in "EF"]
    reply = await client.call("will", after_ms=10, messages=messages)
    assert reply["ok"], reply
    await client.call("publish", messages=[{"topic": "PRICE:E", "data": other, "id": "E"}])
    await client.cut()


async def refuse_a_token(node: Node) -> None:
    client = await RawClient.open(node.port)
    await client.text()
    client.send('40/market,{"token":"rubbish"}')
    assert "auth.invalid" in await client.text()
    client.cut()


async def test_scrape_has_every_documented_metric(shared_redis: RedisServer) -> None:
    async with webhook() as hook:
        settings: dict[str, Any] = {
            "hooks.url": hook.url,
            "hooks.authorize_url": hook.url,
            "hooks.authorize": ("subscribe",),
            "hooks.secret": SECRET,
            "feed.name": "simulated",
            "feed.symbols": "Z",
            "admin.canary_topics": 1,
        }
        async with nodes(shared_redis, **settings) as [one, two]:
            ann = await market_client(one, "TRADES:A")
            await ann.cut()
            ann.node = two
            await ann.connect()
            assert ann.recovered
            await publish_trades(one, 1)
            await ann.next()
            member = await SessionClient.connect(two, "ann", "room")
            client = await ask_webhook(hook, two)
            await refuse_a_token(two)
            await die_with_a_will(two)
            # Whichever node notices it.
            await until(
                lambda: (
                    sum(each.server.counters.total("wills.published") for each in (one, two)) == 1
                )
            )
            await until(lambda: sum(len(each.get("events", ())) for each in hook.bodies) > 5)
            found = await scrape(two)
            others = await scrape(one)
            for each in (ann.wire, member.client, client):
                each.cut()
    assert found["floorcast_hooks_questions_total"] == {
        ("allowed",): 2,
        ("refused",): 1,
        ("cached",): 1,
        ("unavailable",): 1,
    }
    assert found["floorcast_hooks_answer_seconds_count"] == {(): 3}
    sums = {name: sum(found[name].values()) + sum(others[name].values()) for name in OF_ANY_NODE}
    assert sums.pop("floorcast_hooks_events_total") > 5
    assert set(sums.values()) == {1}
    documented = {name for metric in METRICS for name in metric.exposed_names} - OF_SUPERVISOR
    assert documented - found.keys() == set(), "documented, but not scraped"
    assert {name for name in found.keys() - documented if not name.endswith("_created")} == set()
