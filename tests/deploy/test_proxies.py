"""Tests two nodes behind a real proxy with the example configurations."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import socketio

from tests.kit.clock import RunningClock
from tests.kit.network.http_proxies import run_proxy
from tests.kit.network.ports import free_port
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import RunningServer, running

PROXIES = pytest.mark.parametrize("name", ["haproxy", "nginx"])
# nginx selects the node by a hash of the address and of the ports, which differ each time:
# with so many addresses both nodes have clients.
CLIENTS = 32
TRUST_PROXY = {"server.trusted_proxies": ["127.0.0.1"]}
# So long, and so slow, that no client is disconnected during a test.
DRAIN_SECONDS = 1e9
DRAIN_RATE = 1e-9
# HAProxy checks its nodes once per second.
NOTICED_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Site:
    """A proxy's URL and the nodes behind it."""

    url: str
    nodes: tuple[RunningServer, RunningServer]

    def counts(self) -> list[int]:
        """The number of connections of each node."""
        return [each.residue()["sockets"] for each in self.nodes]

    async def until(self, counts: list[int]) -> None:
        """Wait for these counts: a node sees a disconnect only after the proxy does."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while self.counts() != counts:
                    await asyncio.sleep(0.01)
        assert self.counts() == counts


@contextlib.asynccontextmanager
async def site(name: str, folder: Path) -> AsyncIterator[Site]:
    """Run two nodes and a proxy."""
    async with (
        running(TRUST_PROXY, clock=RunningClock()) as one,
        running(TRUST_PROXY, clock=RunningClock()) as two,
    ):
        with run_proxy(name, folder, (one.port, two.port)) as port:
            await asyncio.sleep(0.1)
            yield Site(f"http://127.0.0.1:{port}", (one, two))


class StockClient:
    """A stock Python client with its own address."""

    def __init__(self, site: Site, number: int) -> None:
        connector = aiohttp.TCPConnector(local_addr=(f"127.0.0.{number + 2}", 0))
        self._http = aiohttp.ClientSession(connector=connector)
        self._site = site
        self.client = socketio.AsyncClient(http_session=self._http, reconnection=False)

    async def connect(self, *transports: str) -> None:
        token = self._site.nodes[0].token()
        await self.client.connect(
            self._site.url,
            auth={"token": token, "recovery": False},
            namespaces=["/market"],
            transports=list(transports) or None,
            wait_timeout=MAX_WAIT_SECONDS,
        )

    async def call(self) -> Any:
        """Make a call that only the client's node can answer."""
        return await self.client.call(
            "subscriptions", {}, namespace="/market", timeout=MAX_WAIT_SECONDS
        )

    async def disconnect(self) -> None:
        await self.client.disconnect()
        await self._http.close()


@contextlib.asynccontextmanager
async def stock_clients(
    site: Site, *transports: str, first: int = 0
) -> AsyncIterator[list[StockClient]]:
    """Connect clients, each from its own address."""
    clients = [StockClient(site, first + number) for number in range(CLIENTS)]
    try:
        await asyncio.gather(*(each.connect(*transports) for each in clients))
        yield clients
    finally:
        await asyncio.gather(*(each.disconnect() for each in clients))


@PROXIES
async def test_requests_of_a_polling_client_reach_its_node(name: str, tmp_path: Path) -> None:
    async with site(name, tmp_path) as deployment, stock_clients(deployment, "polling") as clients:
        assert sum(deployment.counts()) == CLIENTS
        assert min(deployment.counts()) > 0
        for _ in range(5):
            replies = await asyncio.gather(*(each.call() for each in clients))
            assert all(reply["ok"] for reply in replies)
        assert {each.client.transport() for each in clients} == {"polling"}


@PROXIES
async def test_polling_client_upgrades_behind_a_proxy(name: str, tmp_path: Path) -> None:
    async with site(name, tmp_path) as deployment, stock_clients(deployment) as clients:
        assert {each.client.transport() for each in clients} == {"websocket"}
        assert min(deployment.counts()) > 0
        assert all([(await each.call())["ok"] for each in clients])


@PROXIES
async def test_node_sees_the_client_address_behind_a_proxy(name: str, tmp_path: Path) -> None:
    async with site(name, tmp_path) as deployment, stock_clients(deployment, "websocket"):
        addresses = {
            connection.request.ip
            for node in deployment.nodes
            for connection in node.server.sockets.connections()
        }
        assert addresses == {f"127.0.0.{number + 2}" for number in range(CLIENTS)}


@PROXIES
async def test_draining_node_keeps_its_clients_and_gets_no_new_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.draining._DISCONNECTS_PER_SECOND", DRAIN_RATE)
    async with site(name, tmp_path) as deployment, stock_clients(deployment, "polling") as clients:
        before = deployment.counts()
        assert min(before) > 0
        draining = asyncio.ensure_future(deployment.nodes[0].server.drain(DRAIN_SECONDS))
        try:
            # Before and after the proxy's health check.
            for first, wait_seconds in ((40, 0.0), (80, NOTICED_SECONDS)):
                await asyncio.sleep(wait_seconds)
                for transport in ("polling", "websocket"):
                    async with stock_clients(deployment, transport, first=first) as new_clients:
                        await deployment.until([before[0], before[1] + CLIENTS])
                        for each in (*new_clients, *clients):
                            assert (await each.call())["ok"]
        finally:
            draining.cancel()


@PROXIES
async def test_remaining_node_serves_every_client(name: str, tmp_path: Path) -> None:
    async with running(TRUST_PROXY, clock=RunningClock()) as left:
        with run_proxy(name, tmp_path, (free_port(), left.port)) as port:
            deployment = Site(f"http://127.0.0.1:{port}", (left, left))
            for transport in ("polling", "websocket"):
                async with stock_clients(deployment, transport) as clients:
                    for each in clients:
                        assert (await each.call())["ok"]


async def test_cookie_routes_to_the_node_from_another_address(tmp_path: Path) -> None:
    async with site("haproxy", tmp_path) as deployment:
        for number in range(4):
            jar = aiohttp.CookieJar(unsafe=True)
            query = "?EIO=4&transport=polling"
            sid = ""
            for address in (f"127.0.0.{40 + number}", f"127.0.0.{50 + number}"):
                connector = aiohttp.TCPConnector(local_addr=(address, 0))
                async with (
                    aiohttp.ClientSession(connector=connector, cookie_jar=jar) as http,
                    http.get(f"{deployment.url}/socket.io/{query}{sid}") as response,
                ):
                    assert response.status == 200
                    if not sid:
                        sid = "&sid=" + json.loads((await response.text())[1:])["sid"]
                        await http.post(
                            f"{deployment.url}/socket.io/{query}{sid}",
                            data='40/market,{"token":"' + deployment.nodes[0].token() + '"}',
                        )
