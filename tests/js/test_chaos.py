"""Test stock JavaScript clients on a faulty network: nothing lost, nothing twice."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import pairwise
from random import Random

import pytest

from client_sdk.contract import Scope
from server.access import new_secret
from server.cli.private_redis import private_redis
from tests.js.trading import PRIVATE, Trading, TradingLedger
from tests.kit.clients.js_browsers import Browser, Report, run_browsers, token
from tests.kit.network.faults import Chaos, Fault, plan
from tests.kit.network.tcp_proxy import Proxy
from tests.kit.programs import require_program
from tests.kit.server.demo import demo

SECONDS = float(os.environ.get("FLOORCAST_CHAOS_SECONDS", "10"))
SEED = int(os.environ.get("FLOORCAST_CHAOS_SEED", "1"))
TOPICS = [
    *(f"PRICE:P{number}" for number in range(6)),
    *(f"ORDERBOOK:B{number}" for number in range(5)),
    *(f"TRADES:T{number}" for number in range(6)),
    *PRIVATE,
]
SESSIONS = ["job:1", "job:2", "job:3"]
USERS = ["ann", "bob"]
WEBSOCKET = ("websocket",)
POLLING = ("polling",)
BROWSERS = [
    Browser("ann"),
    Browser("ann", session_id="job:1"),
    Browser("ann", transports=POLLING),
    Browser("bob", transports=WEBSOCKET),
    Browser("bob", transports=WEBSOCKET, session_id="job:2"),
    Browser("ann", recovery=False),
    Browser("bob", transports=WEBSOCKET, recovery=False, session_id="job:3"),
]
SETTINGS = {
    # Short enough to detect a silent connection within the run.
    "FLOORCAST_PING__INTERVAL_SECONDS": "0.5",
    "FLOORCAST_PING__TIMEOUT_SECONDS": "1.5",
    "FLOORCAST_LIMITS__EVENTS_PER_SECOND": "0",
}
# Between two faults, besides their duration.
PAUSE_SECONDS = (0.0, 0.15)
DURATION_SECONDS = (0.1, 0.5)
QUIET_SECONDS = 1


@contextlib.contextmanager
def served(count: int, secret: str) -> Iterator[list[str]]:
    """Run servers, which share a Redis if they are several; yield their URLs."""
    settings = {**SETTINGS, "FLOORCAST_AUTH__SECRET": secret}
    with contextlib.ExitStack() as started:
        if count > 1:
            require_program("redis-server")
            settings["FLOORCAST_BROKER__URL"] = started.enter_context(private_redis())
        servers = [demo("--feed", "none", environ=settings) for _ in range(count)]
        yield [started.enter_context(server).url for server in servers]


@pytest.mark.behaviour("E14")
@pytest.mark.timeout(90 + 2 * SECONDS)
@pytest.mark.parametrize("count", [1, 2], ids=["one node", "two nodes"])
async def test_stock_clients_lose_and_repeat_nothing_on_a_bad_network(
    count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = new_secret()
    browsers = BROWSERS
    if count > 1:
        # All requests of a polling client must reach one node.
        browsers = [replace(each, transports=WEBSOCKET) for each in browsers]
    with served(count, secret) as urls:
        scopes = [Scope.MARKET_PUBLISH, Scope.SESSION_JOIN]
        trading = Trading(
            urls[0],
            urls[-1],
            token(secret, "desk", scopes),
            topics=TOPICS,
            sessions=SESSIONS,
            users=USERS,
            seed=SEED,
        )
        ports = [int(url.rpartition(":")[2]) for url in urls]
        random = Random(SEED)
        async with trading, Proxy(ports[0]) as proxy:
            proxy.choose_port = lambda: random.choice(ports)
            async with run_browsers(
                proxy.url, secret, browsers, topics=TOPICS, sessions=SESSIONS
            ) as clients:
                await clients.until_settled({})
                await clients.report("begin")
                chaos = Chaos(
                    proxy,
                    plan(
                        SEED,
                        count=int(100 * SECONDS),
                        pause_seconds=PAUSE_SECONDS,
                        duration_seconds=DURATION_SECONDS,
                    ),
                )
                faults_task = asyncio.create_task(chaos.run(), name="chaos")
                await trading.run(SECONDS)
                faults_task.cancel()
                await asyncio.wait([faults_task])
                await clients.until_settled(trading.ledger.heads)
                # A duplicate would come late.
                await asyncio.sleep(QUIET_SECONDS)
                reports = await clients.report("whole")
    with capfd.disabled():
        print(summary(reports, trading.ledger, chaos.counts))
    violations = [
        (browser, each["violations"][:5]) for browser, each in reports if each["violations"]
    ]
    assert not violations
    for browser, report in reports:
        check_report(browser, report, trading.ledger)
    assert set(chaos.counts) == set(Fault)
    assert "Traceback" not in capfd.readouterr().err


class ReconnectNode(StrEnum):
    """The node of a reconnect, compared with the one before."""

    SAME = "same node"
    OTHER = "other node"
    # Cut before the welcome, which names the node.
    UNKNOWN = "unknown node"


def compare_nodes(before: Report, after: Report) -> ReconnectNode:
    """Compare the nodes that two welcomes name."""
    nodes = before.get("node"), after.get("node")
    if None in nodes:
        return ReconnectNode.UNKNOWN
    return ReconnectNode.SAME if nodes[0] == nodes[1] else ReconnectNode.OTHER


def check_report(browser: Browser, report: Report, ledger: TradingLedger) -> None:
    """Check that a client received what was acknowledged and recovered when it must."""
    # A reconnect within the grace period causes no presence event.
    assert report.get("presence", []) == [], browser
    first, *others = report["connects"]
    assert not first["recovered"]
    assert len(others) > 0
    for before, after in pairwise(report["connects"]):
        # On the same node and on the other one.
        assert after["recovered"] == after["same"] == browser.recovery, (browser, before, after)
    for name, followed in report["followed"].items():
        key = browser.ledger_key(name)
        head = {"epoch": ledger.epochs[key], "seq": ledger.heads[key]}
        assert followed["position"] == head, (browser, name)
        if key in ledger.prices:
            assert followed["data"] == ledger.prices[key]
        elif key in ledger.books:
            assert followed["book"] == ledger.books[key].sides
            assert followed["data"]["checksum"] == ledger.books[key].checksum()
        else:
            assert [tuple(each) for each in followed["received"]] == sorted(
                ledger.kept[key].items()
            )


def summary(
    reports: Sequence[tuple[Browser, Report]], ledger: TradingLedger, faults: Counter[Fault]
) -> str:
    """The figures of the run."""
    # Outcomes of reconnects, by namespace and node.
    outcomes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    received = 0
    for _, report in reports:
        reasons.update(report["reasons"])
        received += sum(len(each.get("received", ())) for each in report["followed"].values())
        namespace = "/session" if "presence" in report else "/market"
        for before, after in pairwise(report["connects"]):
            how = "recovered" if after["recovered"] else "fresh"
            node = compare_nodes(before, after)
            outcomes[f"{namespace} {how} {node}" if report["recovery"] else "by position"] += 1
    return (
        f"\n{ledger.count} messages in {SECONDS:.0f} s, seed {SEED}\n"
        f"received from stored topics: {received}\n"
        f"reconnects: {dict(outcomes)}\n"
        f"faults: { {fault.value: count for fault, count in faults.items()} }\n"
        f"disconnects: {dict(reasons)}"
    )
