"""Drive a real browser over the Chrome DevTools Protocol."""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit.patience import MAX_WAIT_SECONDS

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


class Page:
    """One page of the browser."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._last_id = 0

    async def call(self, method: str, **params: object) -> Any:
        """Call a method of the DevTools protocol; return its result."""
        self._last_id += 1
        await self._socket.send_json({"id": self._last_id, "method": method, "params": params})
        while True:
            answer = await self._socket.receive_json()
            if answer.get("id") == self._last_id:
                return answer["result"]

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while not await self.evaluate(expression):
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def open_page(url: str, profile: Path) -> AsyncIterator[Page]:
    """Open a page in Chromium; without Chromium skip the test, or fail it with CI=true."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed: install it in CI")
        pytest.skip("chromium is not installed: install it to run browser tests")
    process = await asyncio.create_subprocess_exec(
        chromium, *_FLAGS, f"--user-data-dir={profile}", url, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with aiohttp.ClientSession() as http:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                port = ""
                while not port:
                    line = (await process.stderr.readline()).decode()
                    found = re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line)
                    port = found[1] if found else ""
                async with http.get(f"http://127.0.0.1:{port}/json/list") as response:
                    [page] = [each for each in await response.json() if each["type"] == "page"]
            patience = aiohttp.ClientWSTimeout(ws_receive=MAX_WAIT_SECONDS)
            async with http.ws_connect(page["webSocketDebuggerUrl"], timeout=patience) as socket:
                yield Page(socket)
    finally:
        process.kill()
        await process.wait()
