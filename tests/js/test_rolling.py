"""Two nodes are restarted one after the other, and stock JavaScript clients go on."""

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from tests.kit.proxies import free_port, proxy
from tests.kit.readers import DEFAULT, reading
from tests.kit.workers import Workers, workers

NODE = {
    "FLOORCAST_SERVER__DRAIN_SECONDS": "1",
    "FLOORCAST_SERVER__TRUSTED_PROXIES": "127.0.0.1",
    "FLOORCAST_FEED__NAME": "simulated",
    "FLOORCAST_FEED__RATE": "100",
}
READERS = [*[DEFAULT] * 6, *[("websocket",)] * 4, *[("polling",)] * 4]


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
async def test_everybody_comes_back_from_a_rolling_restart(name: str, tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    with contextlib.ExitStack() as started, proxy(name, tmp_path, ports) as port:

        def start(node_port: int) -> Workers:
            return started.enter_context(workers(1, "--port", str(node_port), environ=NODE))

        nodes = [await asyncio.to_thread(start, each) for each in ports]
        # The proxy has to see them.
        await asyncio.sleep(1.5)
        url, token = f"http://127.0.0.1:{port}", Workers.token()
        async with reading(url, token, "PRICE:BTCUSDT", READERS) as readers:
            before = await readers.until(lambda each: each.received > 0)
            for node, node_port in zip(nodes, ports, strict=True):
                node.process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(node.process.wait, 10) == 0
                await asyncio.to_thread(start, node_port)
                await readers.until(lambda each: each.connected)
                await asyncio.sleep(1.5)
            seen = [each.received for each in await readers.reports()]
            await asyncio.sleep(0.2)
            after = await readers.until(lambda each: each.connected)
        assert sum(each.connects for each in after) >= sum(each.connects for each in before) + len(
            READERS
        )
        for number, each in enumerate(after):
            assert each.received > seen[number]
            assert each.gaps == 0
            assert (each.transport == "polling") is (READERS[number] == ("polling",))
