"""Run stock JavaScript clients that follow topics and sessions and report what they received."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client_sdk.contract import Scope
from server.access import mint
from server.server import SystemClock
from tests.js.trading import PRIVATE
from tests.kit.patience import MAX_WAIT_SECONDS

PROGRAM = Path(__file__).parents[2] / "js" / "chaos" / "clients.mjs"
MAX_REPORT_BYTES = 64 * 1024 * 1024

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Browser:
    """The options of one client: one connection for both namespaces."""

    user: str
    # Empty is the default: polling, then an upgrade.
    transports: tuple[str, ...] = ()
    # False resumes by positions alone, without connection state recovery.
    recovery: bool = True
    session_id: str | None = None

    def options(self, secret: str) -> dict[str, object]:
        """The options as the Node process expects them."""
        options: dict[str, object] = {
            "recovery": self.recovery,
            "token": token(secret, self.user, [Scope.MARKET_READ, Scope.SESSION_JOIN]),
        }
        if self.transports:
            options["transports"] = self.transports
        if self.session_id is not None:
            options["session_id"] = self.session_id
        return options

    def ledger_key(self, name: str) -> str:
        """The ledger's key of a topic or session: a private topic is keyed by user."""
        return f"{name}@{self.user}" if name in PRIVATE else name


def token(secret: str, user: str, scopes: list[Scope]) -> str:
    """A valid token for this user."""
    return mint(secret, subject=user, scopes=scopes, clock=SystemClock(), ttl_seconds=3600)


class BrowserProcess:
    """The Node process that runs the clients."""

    def __init__(self, process: asyncio.subprocess.Process, browsers: Sequence[Browser]) -> None:
        self._process = process
        # Each client has a socket on `/market` and one on `/session`.
        self._sockets = [browser for browser in browsers for _ in range(2)]

    async def report(self, mode: str = "brief") -> list[tuple[Browser, Report]]:
        """The state of each socket.

        `whole` includes every received message. `begin` clears the presence events first:
        from then on all members are joined.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{mode}\n".encode())
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            reports: list[Report] = json.loads(await self._process.stdout.readline())
        return list(zip(self._sockets, reports, strict=True))

    async def until_settled(self, heads: dict[str, int]) -> None:
        """Wait until all sockets are connected and at the heads of the ledger."""
        behind = ["no report yet"]
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while behind:
                    behind = [
                        f"{browser}: {report}"
                        for browser, report in await self.report()
                        if not report["settled"] or not is_up_to_date(browser, report, heads)
                    ]
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(behind) from None


def is_up_to_date(browser: Browser, report: Report, heads: dict[str, int]) -> bool:
    """Whether the client has reached the head of each topic and session it follows."""
    followed = report["followed"].items()
    return all(seq == heads.get(browser.ledger_key(name), 0) for name, seq in followed)


@contextlib.asynccontextmanager
async def run_browsers(
    url: str,
    secret: str,
    browsers: Sequence[Browser],
    *,
    topics: Sequence[str],
    sessions: Sequence[str],
) -> AsyncIterator[BrowserProcess]:
    """Run the clients until the block ends."""
    chaos = {
        "url": url,
        "topics": topics,
        "sessions": sessions,
        "clients": [browser.options(secret) for browser in browsers],
    }
    process = await asyncio.create_subprocess_exec(
        "node",
        PROGRAM,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "FLOORCAST_CHAOS": json.dumps(chaos)},
        limit=MAX_REPORT_BYTES,
    )
    try:
        yield BrowserProcess(process, browsers)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
