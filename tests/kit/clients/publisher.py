"""Publish numbered trades through any outage, and record the acknowledged ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from itertools import pairwise

from tests.kit.clients.js_readers import Readers
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until

TOPIC = "TRADES:LEDGER"
_PAUSE_SECONDS = 0.01
_RETRY_SECONDS = 0.05
# Raised by a broken connection, a stopping server and an unreachable one.
_CONNECTION_ERRORS = (ConnectionError, EOFError, TimeoutError)


class Publisher:
    """Publishes each number until it is acknowledged."""

    def __init__(self, port: int, token: str) -> None:
        self.acknowledged: list[str] = []
        self.lost_connections = 0
        self.slowest_reply_seconds = 0.0
        self._port = port
        self._token = token

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            client = None
            try:
                client = await RawClient.connect(self._port, self._token)
                while True:
                    await self._publish_next(client)
                    await asyncio.sleep(_PAUSE_SECONDS)
            except _CONNECTION_ERRORS:
                self.lost_connections += 1
                await asyncio.sleep(_RETRY_SECONDS)
            finally:
                if client is not None:
                    client.cut()

    async def _publish_next(self, client: RawClient) -> None:
        number = str(len(self.acknowledged))
        trade = {"id": number, "price": "1.00", "qty": "1", "side": "buy", "ts": 1}
        message = {"topic": TOPIC, "data": {"trades": [trade]}, "id": f"ledger-{number}"}
        began = asyncio.get_running_loop().time()
        try:
            reply = await client.call("publish", {"messages": [message]})
        finally:
            seconds = asyncio.get_running_loop().time() - began
            self.slowest_reply_seconds = max(self.slowest_reply_seconds, seconds)
        if reply["ok"]:
            self.acknowledged.append(number)

    async def until_acknowledged(self, count: int) -> None:
        """Wait until `count` more messages are acknowledged."""
        target = len(self.acknowledged) + count
        await until(lambda: len(self.acknowledged) >= target)

    async def until_all_received(self, readers: Readers) -> None:
        """Wait until each reader has every acknowledged trade: once, in order, without a gap."""
        count = len(self.acknowledged)
        reports = await readers.until(
            lambda each: each.connected and len(each.trades) >= count - _first_id(each.trades)
        )
        for each in reports:
            ids = list(map(int, each.trades))
            misplaced = [(one, other) for one, other in pairwise(ids) if other != one + 1]
            is_complete = not (misplaced or each.gaps or each.resets)
            assert is_complete, f"{misplaced=} {each.gaps=} {each.resets=} {each.connects=}"


def _first_id(trades: list[str]) -> int:
    return int(trades[0]) if trades else 0


@contextlib.asynccontextmanager
async def run_publisher(port: int, token: str) -> AsyncIterator[Publisher]:
    """Publish until the block ends."""
    publisher = Publisher(port, token)
    task = asyncio.get_running_loop().create_task(publisher.run(), name="publisher")
    try:
        yield publisher
    finally:
        task.cancel()
        await asyncio.wait([task])
        # Any other exception than a lost connection fails the test.
        with contextlib.suppress(asyncio.CancelledError):
            task.result()
