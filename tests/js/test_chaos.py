"""Stock JavaScript clients on a network that breaks all the time: nothing lost, nothing twice."""

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from client_sdk.contract import Scope
from server.access import mint, new_secret
from server.app import SystemClock
from tests.js.trading import PRIVATE, Ledger, Trading
from tests.kit.demo import demo
from tests.kit.faults import Chaos, Fault, plan
from tests.kit.patience import PATIENCE_SECONDS
from tests.kit.proxy import Proxy

CLIENTS = Path(__file__).parent / "chaos" / "clients.mjs"
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
SETTINGS = {
    # So short that a connection which has gone silent is noticed within the run.
    "FLOORCAST_PING__INTERVAL_SECONDS": "0.5",
    "FLOORCAST_PING__TIMEOUT_SECONDS": "1.5",
    "FLOORCAST_LIMITS__EVENTS_PER_SECOND": "0",
}
# Between two faults; some last besides.
PAUSES_SECONDS = (0.0, 0.15)
LASTING_SECONDS = (0.1, 0.5)
QUIET_SECONDS = 1
REPORT_BYTES = 64 * 1024 * 1024

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Browser:
    """One client as it is started: a connection for both namespaces."""

    user: str
    # Empty is the default: polling, then upgraded.
    transports: tuple[str, ...] = ()
    # False goes on by positions alone, as if the server could give nothing back.
    recovery: bool = True
    session_id: str | None = None

    def options(self, secret: str) -> dict[str, object]:
        """For the process that runs it."""
        options: dict[str, object] = {
            "recovery": self.recovery,
            "token": token(secret, self.user, [Scope.MARKET_READ, Scope.SESSION_JOIN]),
        }
        if self.transports:
            options["transports"] = self.transports
        if self.session_id is not None:
            options["session_id"] = self.session_id
        return options

    def key(self, name: str) -> str:
        """A topic or session as the ledger calls it: a private topic is that of the user."""
        return f"{name}@{self.user}" if name in PRIVATE else name


BROWSERS = [
    Browser("ann"),
    Browser("ann", session_id="job:1"),
    Browser("ann", transports=POLLING),
    Browser("bob", transports=WEBSOCKET),
    Browser("bob", transports=WEBSOCKET, session_id="job:2"),
    Browser("ann", recovery=False),
    Browser("bob", transports=WEBSOCKET, recovery=False, session_id="job:3"),
]
# Each is a socket on `/market` and one on `/session`.
SOCKETS = [browser for browser in BROWSERS for _ in range(2)]


def token(secret: str, user: str, scopes: list[Scope]) -> str:
    return mint(secret, subject=user, scopes=scopes, clock=SystemClock(), ttl_seconds=3600)


class Clients:
    """The process that runs them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def report(self, how: str = "brief") -> list[Report]:
        """What each socket has come to; `whole`, with all that it heard.

        With `begin` everybody is there: nobody comes or goes from then on.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{how}\n".encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            reports: list[Report] = json.loads(await self._process.stdout.readline())
        return reports

    async def settled(self, heads: dict[str, int]) -> None:
        """Wait until all are connected and stand where the ledger ends."""
        behind = ["nobody has answered"]
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while behind:
                    reports = await self.report()
                    behind = [
                        f"{browser}: {report}"
                        for browser, report in zip(SOCKETS, reports, strict=True)
                        if not report["settled"] or not is_up_to_date(browser, report, heads)
                    ]
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(behind) from None


def is_up_to_date(browser: Browser, report: Report, heads: dict[str, int]) -> bool:
    """Whether it stands where the ledger ends, in all that it follows."""
    followed = report["followed"].items()
    return all(seq == heads.get(browser.key(name), 0) for name, seq in followed)


@contextlib.asynccontextmanager
async def clients(url: str, secret: str) -> AsyncIterator[Clients]:
    """Start the clients, and end them with the block."""
    chaos = {
        "url": url,
        "topics": TOPICS,
        "sessions": SESSIONS,
        "clients": [browser.options(secret) for browser in BROWSERS],
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        CLIENTS,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "FLOORCAST_CHAOS": json.dumps(chaos)},
        limit=REPORT_BYTES,
    )
    try:
        yield Clients(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


@pytest.mark.behaviour("E14")
@pytest.mark.timeout(90 + 2 * SECONDS)
async def test_stock_clients_lose_nothing_and_hear_nothing_twice_on_a_network_that_breaks(
    capfd: pytest.CaptureFixture[str],
) -> None:
    secret = new_secret()
    settings = {**SETTINGS, "FLOORCAST_AUTH__SECRET": secret}
    with demo("--feed", "none", environ=settings) as server:
        scopes = [Scope.MARKET_PUBLISH, Scope.SESSION_JOIN]
        trading = Trading(
            server.url,
            token(secret, "desk", scopes),
            topics=TOPICS,
            sessions=SESSIONS,
            users=USERS,
            seed=SEED,
        )
        async with (
            trading,
            Proxy(int(server.url.rpartition(":")[2])) as proxy,
            clients(proxy.url, secret) as browsers,
        ):
            await browsers.settled({})
            await browsers.report("begin")
            chaos = Chaos(
                proxy,
                plan(
                    SEED,
                    count=int(100 * SECONDS),
                    every_seconds=PAUSES_SECONDS,
                    lasts_seconds=LASTING_SECONDS,
                ),
            )
            trouble = asyncio.create_task(chaos.run(), name="chaos")
            await trading.run(SECONDS)
            trouble.cancel()
            await asyncio.wait([trouble])
            await browsers.settled(trading.ledger.heads)
            # What comes twice comes late.
            await asyncio.sleep(QUIET_SECONDS)
            reports = await browsers.report("whole")
    with capfd.disabled():
        print(summary(reports, trading.ledger, chaos.done))
    faults = {number: each["faults"][:5] for number, each in enumerate(reports) if each["faults"]}
    assert not faults
    for browser, report in zip(SOCKETS, reports, strict=True):
        judge(browser, report, trading.ledger)
    assert set(chaos.done) == set(Fault)
    assert "Traceback" not in capfd.readouterr().err


def judge(browser: Browser, report: Report, ledger: Ledger) -> None:
    """What it heard is what was acknowledged, and it was had back whenever that was promised."""
    # Whoever is back within the grace time has never been away.
    assert report.get("presence", []) == [], browser
    first, *others = report["connects"]
    assert not first["recovered"]
    assert len(others) > 0
    assert all(each["recovered"] == each["same"] == browser.recovery for each in others), browser
    for name, followed in report["followed"].items():
        key = browser.key(name)
        head = {"epoch": ledger.epochs[key], "seq": ledger.heads[key]}
        assert followed["position"] == head, (browser, name)
        if key in ledger.prices:
            assert followed["data"] == ledger.prices[key]
        elif key in ledger.books:
            assert followed["book"] == ledger.books[key].sides
            assert followed["data"]["checksum"] == ledger.books[key].checksum()
        else:
            assert [tuple(each) for each in followed["heard"]] == sorted(ledger.kept[key].items())


def summary(reports: list[Report], ledger: Ledger, faults: Counter[Fault]) -> str:
    """What happened, in figures."""
    reconnects = recovered = by_position = 0
    reasons: Counter[str] = Counter()
    heard = 0
    for report in reports:
        others = report["connects"][1:]
        reasons.update(report["reasons"])
        heard += sum(len(each.get("heard", ())) for each in report["followed"].values())
        if report["recovery"]:
            reconnects += len(others)
            recovered += sum(each["recovered"] for each in others)
        else:
            by_position += len(others)
    return (
        f"\n{ledger.count} messages in {SECONDS:.0f} s, seed {SEED}; {heard} kept ones heard; "
        f"{reconnects} reconnects, {recovered} recovered, and {by_position} by position\n"
        f"faults: { {fault.value: count for fault, count in faults.items()} }\n"
        f"disconnects: {dict(reasons)}"
    )
