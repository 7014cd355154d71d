"""Stock JavaScript clients in a process of their own, which report what they have heard."""

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
from server.app import SystemClock
from tests.js.trading import PRIVATE
from tests.kit.patience import MAX_WAIT_SECONDS

PROGRAM = Path(__file__).parents[2] / "js" / "chaos" / "clients.mjs"
MAX_REPORT_BYTES = 64 * 1024 * 1024

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

    def ledger_key(self, name: str) -> str:
        """A topic or session as the ledger calls it: a private topic is that of the user."""
        return f"{name}@{self.user}" if name in PRIVATE else name


def token(secret: str, user: str, scopes: list[Scope]) -> str:
    """A token that the server takes."""
    return mint(secret, subject=user, scopes=scopes, clock=SystemClock(), ttl_seconds=3600)


class BrowserProcess:
    """The process that runs them."""

    def __init__(self, process: asyncio.subprocess.Process, browsers: Sequence[Browser]) -> None:
        self._process = process
        # Each is a socket on `/market` and one on `/session`.
        self._sockets = [browser for browser in browsers for _ in range(2)]

    async def report(self, mode: str = "brief") -> list[tuple[Browser, Report]]:
        """What each socket has come to; `whole`, with all that it heard.

        With `begin` everybody is there: nobody comes or goes from then on.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{mode}\n".encode())
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            reports: list[Report] = json.loads(await self._process.stdout.readline())
        return list(zip(self._sockets, reports, strict=True))

    async def until_settled(self, heads: dict[str, int]) -> None:
        """Wait until all are connected and stand where the ledger ends."""
        behind = ["nobody has answered"]
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
    """Whether it stands where the ledger ends, in all that it follows."""
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
    """Start the clients, and end them with the block."""
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
