"""Two nodes behind a real proxy, configured as the examples say."""

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
from tests.kit.network.http_proxies import free_port, run_proxy
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import RunningServer, running

PROXIES = pytest.mark.parametrize("name", ["haproxy", "nginx"])
# nginx finds the node by a hash of the address and of the ports, which differ each time:
# with so many addresses both nodes have somebody.
CLIENTS = 32
TRUST_PROXY = {"server.trusted_proxies": ["127.0.0.1"]}
# Nobody's moment to go comes in the time of a test.
DRAIN_SECONDS = 1e9
# What a check of a node that has changed needs to be noticed: HAProxy looks once a second.
NOTICED_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Site:
    """Where clients connect, and the nodes behind."""

    url: str
    nodes: tuple[RunningServer, RunningServer]

    def counts(self) -> list[int]:
        """How many connections each node has."""
        return [each.residue()["sockets"] for each in self.nodes]

    async def until(self, counts: list[int]) -> None:
        """Wait until the nodes have so many: who left was first the proxy's to notice."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while self.counts() != counts:
                    await asyncio.sleep(0.01)
        assert self.counts() == counts


@contextlib.asynccontextmanager
async def site(name: str, folder: Path) -> AsyncIterator[Site]:
    """Two nodes and a proxy."""
    async with (
        running(TRUST_PROXY, clock=RunningClock()) as one,
        running(TRUST_PROXY, clock=RunningClock()) as two,
    ):
        with run_proxy(name, folder, (one.port, two.port)) as port:
            await asyncio.sleep(0.1)
            yield Site(f"http://127.0.0.1:{port}", (one, two))


class StockClient:
    """A stock Python client from an address of its own."""

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
        """Something that only the node that knows it answers."""
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
    """So many, from one address each."""
    them = [StockClient(site, first + number) for number in range(CLIENTS)]
    try:
        await asyncio.gather(*(each.connect(*transports) for each in them))
        yield them
    finally:
        await asyncio.gather(*(each.disconnect() for each in them))


@PROXIES
async def test_all_requests_of_a_polling_client_reach_its_node(name: str, tmp_path: Path) -> None:
    async with site(name, tmp_path) as place, stock_clients(place, "polling") as them:
        assert sum(place.counts()) == CLIENTS
        assert min(place.counts()) > 0
        for _ in range(5):
            answers = await asyncio.gather(*(each.call() for each in them))
            assert all(answer["ok"] for answer in answers)
        assert {each.client.transport() for each in them} == {"polling"}


@PROXIES
async def test_a_polling_client_may_become_a_websocket(name: str, tmp_path: Path) -> None:
    async with site(name, tmp_path) as place, stock_clients(place) as them:
        assert {each.client.transport() for each in them} == {"websocket"}
        assert min(place.counts()) > 0
        assert all([(await each.call())["ok"] for each in them])


@PROXIES
async def test_the_address_of_the_client_is_what_its_node_counts(name: str, tmp_path: Path) -> None:
    async with site(name, tmp_path) as place, stock_clients(place, "websocket"):
        addresses = {
            connection.request.ip
            for node in place.nodes
            for connection in node.server.sockets.connections()
        }
        assert addresses == {f"127.0.0.{number + 2}" for number in range(CLIENTS)}


@PROXIES
async def test_a_node_that_drains_keeps_its_clients_and_gets_no_new_ones(
    name: str, tmp_path: Path
) -> None:
    async with site(name, tmp_path) as place, stock_clients(place, "polling") as them:
        before = place.counts()
        assert min(before) > 0
        draining = asyncio.ensure_future(place.nodes[0].server.drain(DRAIN_SECONDS))
        try:
            # Before any check has noticed, and after.
            for first, wait_seconds in ((40, 0.0), (80, NOTICED_SECONDS)):
                await asyncio.sleep(wait_seconds)
                for transport in ("polling", "websocket"):
                    async with stock_clients(place, transport, first=first) as newcomers:
                        await place.until([before[0], before[1] + CLIENTS])
                        for each in (*newcomers, *them):
                            assert (await each.call())["ok"]
        finally:
            draining.cancel()


@PROXIES
async def test_when_a_node_is_gone_the_other_serves_everybody(name: str, tmp_path: Path) -> None:
    async with running(TRUST_PROXY, clock=RunningClock()) as left:
        with run_proxy(name, tmp_path, (free_port(), left.port)) as port:
            place = Site(f"http://127.0.0.1:{port}", (left, left))
            for transport in ("polling", "websocket"):
                async with stock_clients(place, transport) as them:
                    for each in them:
                        assert (await each.call())["ok"]


async def test_a_cookie_finds_the_node_again_when_the_address_has_changed(tmp_path: Path) -> None:
    async with site("haproxy", tmp_path) as place:
        for number in range(4):
            jar = aiohttp.CookieJar(unsafe=True)
            query = "?EIO=4&transport=polling"
            sid = ""
            for address in (f"127.0.0.{40 + number}", f"127.0.0.{50 + number}"):
                connector = aiohttp.TCPConnector(local_addr=(address, 0))
                async with (
                    aiohttp.ClientSession(connector=connector, cookie_jar=jar) as http,
                    http.get(f"{place.url}/socket.io/{query}{sid}") as response,
                ):
                    assert response.status == 200
                    if not sid:
                        sid = "&sid=" + json.loads((await response.text())[1:])["sid"]
                        await http.post(
                            f"{place.url}/socket.io/{query}{sid}",
                            data='40/market,{"token":"' + place.nodes[0].token() + '"}',
                        )
