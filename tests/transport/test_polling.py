"""Tests polling clients: requests, limits and the upgrade to a WebSocket."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.kit.clients.wire import RawClient, masked
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.in_process import PRICE, RunningServer, running


class Poller:
    """A polling client."""

    def __init__(self, http: aiohttp.ClientSession, node: RunningServer) -> None:
        self._http = http
        self._floor = node
        self.sid = ""

    def url(self, transport: str = "polling") -> str:
        query = f"?EIO=4&transport={transport}" + (f"&sid={self.sid}" if self.sid else "")
        return f"{self._floor.url}/socket.io/{query}"

    async def get(self) -> tuple[int, str]:
        async with self._http.get(self.url()) as response:
            return response.status, await response.text()

    async def post(self, body: str | bytes) -> tuple[int, str]:
        async with self._http.post(self.url(), data=body) as response:
            return response.status, await response.text()

    async def open(self) -> dict[str, object]:
        status, text = await self.get()
        assert status == 200
        assert text.startswith("0{")
        opened: dict[str, object] = json.loads(text[1:])
        self.sid = str(opened["sid"])
        return opened

    async def join(self, token: str) -> None:
        await self.open()
        payload = json.dumps({"token": token, "recovery": False})
        assert await self.post(f"40/market,{payload}") == (200, "ok")
        status, text = await self.get()
        assert status == 200
        assert "40/market," in text
        assert "welcome" in text


@contextlib.asynccontextmanager
async def polling(
    settings: dict[str, object] | None = None,
) -> AsyncIterator[tuple[RunningServer, Poller]]:
    async with running(settings) as node, aiohttp.ClientSession() as http:
        yield node, Poller(http, node)


DEEP = [f"ORDERBOOK:S{number}" for number in range(16)]


async def deep_books(node: RunningServer) -> None:
    """Publish books with large snapshots."""
    bids = [[f"{level}.00000001", "1.00000000"] for level in range(1, 201)]
    for topic in DEEP:
        await node.server.market.publishing.publish(
            topic, {"bids": bids, "asks": []}, kind="snapshot"
        )


async def test_polling_client_receives_events() -> None:
    async with polling() as (node, poller):
        opened = await poller.open()
        assert opened["upgrades"] == ["websocket"]
        assert opened["maxPayload"] == 2 * 65536
        await poller.post(f"40/market,{json.dumps({'token': node.token(), 'recovery': False})}")
        await poller.post('42/market,0["subscribe",{"topics":["PRICE:A"]}]')
        _, text = await poller.get()
        assert [each[:2] for each in text.split("\x1e")] == ["40", "42", "43"]
        waiting = asyncio.create_task(poller.get())
        await asyncio.sleep(0)
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        _, text = await waiting
        seqs = [json.loads(each[10:])[1]["seq"] for each in text.split("\x1e")]
        assert seqs == [1, 2]
        assert await poller.post("1") == (200, "ok")
        await node.until_empty()


async def test_server_handles_many_packets_in_one_post() -> None:
    async with polling({"limits.polling_packets": 40}) as (node, poller):
        await poller.join(node.token())
        events = [f'42/market,{i}["subscriptions"]' for i in range(41)]
        assert (await poller.post("\x1e".join(events[:40])))[0] == 200
        # The stock Python client accepts at most 16 packets in one response.
        texts = [(await poller.get())[1].split("\x1e") for _ in range(3)]
        assert [len(packets) for packets in texts] == [16, 16, 8]
        assert (await poller.post("\x1e".join(events)))[0] == 400
        await node.until_empty()


@pytest.mark.behaviour("D49")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"4[[[",
        b"\xff\xfe",
        b"42/market,1[]\x1e",
        b"\x1e\x1e",
        b"bAAEC",
        b"d=4%22",
        b"3",
        b"2probe",
        b"5",
        b'42["x"]',
        b"4" + b" " * 2 * 65536,
        b'42/market,["connect"]',
    ],
)
async def test_malformed_post_closes_the_connection(body: bytes) -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        assert (await poller.post(body))[0] == 400
        await node.until_empty()
        assert await poller.get() == (400, '{"code":1,"message":"Session ID unknown"}')


async def test_body_without_a_length_is_limited() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"4" * 4096

    async with polling() as (node, poller):
        await poller.join(node.token())
        async with aiohttp.ClientSession() as http:
            with contextlib.suppress(aiohttp.ClientError):
                async with http.post(poller.url(), data=endless()) as response:
                    assert response.status == 400
        await node.until_empty()


async def test_slow_body_closes_the_connection() -> None:
    async with polling({"limits.head_timeout_seconds": 0.2}) as (node, poller):
        await poller.join(node.token())
        reader, writer = await asyncio.open_connection(node.host, node.port)
        path = poller.url().removeprefix(node.url)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n42".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")
        writer.close()
        await node.until_empty()


async def test_overlapping_polls_close_the_connection() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        first = asyncio.create_task(poller.get())
        await node.until_polled()
        assert (await poller.get())[0] == 400
        assert await first == (200, "1"), "the first poll must close the client"
        await node.until_empty()
        assert (await poller.get())[0] == 400


async def test_waiting_poll_gets_a_noop_when_the_client_closes() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        waiting = asyncio.create_task(poller.get())
        await node.until_polled()
        assert await poller.post("1") == (200, "ok")
        assert await waiting == (200, "6")
        await node.until_empty()


async def test_cancelled_poll_closes_the_connection() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        waiting = asyncio.create_task(poller.get())
        await node.until_polled()
        waiting.cancel()
        await node.until_empty()


async def test_ping_timeout_closes_a_client_that_stops_polling() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        node.pass_time(25)
        assert await poller.get() == (200, "2")
        assert (await poller.post("3"))[0] == 200
        node.pass_time(25)
        node.pass_time(20.1)
        await node.until_empty()
        assert (await poller.get())[0] == 400


async def test_post_waits_for_a_client_that_does_not_poll() -> None:
    async with polling({"limits.events_per_second": 0}) as (node, client):
        await client.join(node.token())
        await deep_books(node)
        [connection] = node.server.sockets.connections()
        subscribe = json.dumps(["subscribe", {"topics": DEEP}])
        body = "\x1e".join(f"42/market,{number}{subscribe}" for number in range(100))
        post = asyncio.create_task(client.post(body))
        await until(lambda: connection.clogged)
        await asyncio.sleep(0.05)
        assert not post.done()
        assert connection.buffered_bytes < 512 * 1024, "a hundred replies are buffered"
        texts = ""
        while texts.count("43/market,") < 100:
            texts += (await client.get())[1]
        assert await post == (200, "ok")
        await client.post("1")
        await node.until_empty()


async def test_concurrent_posts_over_the_limit_close_the_connection() -> None:
    settings: dict[str, object] = {"limits.events_per_second": 0, "limits.polling_packets": 10}
    async with polling(settings) as (node, client):
        await client.join(node.token())
        await deep_books(node)
        subscribe = json.dumps(["subscribe", {"topics": DEEP}])
        body = "\x1e".join(f"42/market,{number}{subscribe}" for number in range(10))
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            responses = await asyncio.gather(*(client.post(body) for _ in range(5)))
        assert {status for status, _ in responses} == {400}
        await node.until_empty()


async def test_second_post_at_once_closes_the_connection() -> None:
    async with polling({"limits.events_per_second": 0}) as (node, client):
        await client.join(node.token())
        await deep_books(node)
        subscribe = json.dumps(["subscribe", {"topics": DEEP}])
        body = "\x1e".join(f"42/market,{number}{subscribe}" for number in range(100))
        first = asyncio.create_task(client.post(body))
        [connection] = node.server.sockets.connections()
        await until(lambda: connection.clogged)
        assert (await client.post('42/market,["subscriptions"]'))[0] == 400
        assert (await first)[0] == 400
        await node.until_empty()


async def test_waiting_poll_receives_the_goodbye() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token(ttl_seconds=10))
        waiting = asyncio.create_task(poller.get())
        await node.until_polled()
        node.pass_time(16)
        _, text = await waiting
        assert '"goodbye",{"code":"auth.expired"' in text
        await node.until_empty()
        assert (await poller.get())[0] == 400


async def test_upgrade_loses_no_packet() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        await poller.post('42/market,0["subscribe",{"topics":["PRICE:A"]}]')
        await poller.get()
        waiting = asyncio.create_task(poller.get())
        await node.until_polled()
        ws = await RawClient.open(node.port, query=f"&sid={poller.sid}")
        ws.send("2probe")
        assert await ws.text() == "3probe"
        assert await waiting == (200, "6")
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        await asyncio.sleep(0)
        ws.send("5")
        event, message = await ws.event()
        assert (event, message["seq"]) == ("price", 1)
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        assert (await ws.event())[1]["seq"] == 2
        assert (await ws.call("subscriptions", {}))["ok"]
        assert (await poller.get())[0] == 400, "polling must fail after the upgrade"
        ws.cut()
        await node.until_empty()


async def test_upgrade_between_two_polls_drops_the_noop_packet() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        ws = await RawClient.open(node.port, query=f"&sid={poller.sid}")
        ws.send("2probe")
        assert await ws.text() == "3probe"
        ws.send("5")
        ws.send('42/market,3["subscriptions"]')
        assert (await ws.text()).startswith("43/market,3")
        ws.cut()
        await node.until_empty()


async def test_client_keeps_polling_after_a_failed_probe() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        for wrong in ("nonsense", "5", "3probe"):
            ws = await RawClient.open(node.port, query=f"&sid={poller.sid}")
            ws.send(wrong)
            await ws.until_closed()
        leaving = await RawClient.open(node.port, query=f"&sid={poller.sid}")
        leaving.send_bytes(masked(b"", first=0x89) + masked(b"", first=0x88))
        await leaving.until_closed()
        silent = await RawClient.open(node.port, query=f"&sid={poller.sid}")
        with pytest.raises(ConnectionError):
            await RawClient.open(node.port, query=f"&sid={poller.sid}")
        node.pass_time(10.1)
        await silent.until_closed()
        await poller.post('42/market,0["subscriptions"]')
        assert (await poller.get())[1] == '43/market,0[{"ok":true,"topics":{}}]'
        await poller.post("1")
        await node.until_empty()


async def test_probe_that_floods_with_pings_ends_its_connection() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        ws = await RawClient.open(node.port, query=f"&sid={poller.sid}")
        ws.send_bytes(masked(b"x" * 125, first=0x89) * 65)
        await ws.until_closed()
        await node.until_empty()
        assert (await poller.get())[0] == 400


async def test_probe_closes_with_its_polling_connection() -> None:
    async with polling() as (node, poller):
        await poller.join(node.token())
        ws = await RawClient.open(node.port, query=f"&sid={poller.sid}")
        await poller.post("1")
        ws.send("2probe")
        await ws.until_closed()
        await node.until_empty()


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("EIO=3&transport=polling", {"code": 5, "message": "Unsupported protocol version"}),
        ("transport=polling", {"code": 5, "message": "Unsupported protocol version"}),
        ("EIO=4&transport=carrier-pigeon", {"code": 0, "message": "Transport unknown"}),
        ("EIO=4", {"code": 0, "message": "Transport unknown"}),
        ("EIO=4&transport=polling&sid=nobody", {"code": 1, "message": "Session ID unknown"}),
        ("EIO=4&transport=websocket", {"code": 3, "message": "Bad request"}),
    ],
)
async def test_invalid_request_gets_an_engineio_error(query: str, error: dict[str, object]) -> None:
    async with running() as node, aiohttp.ClientSession() as http:
        async with http.get(f"{node.url}/socket.io/?{query}") as response:
            assert response.status == 400
            assert await response.json() == error
        assert not any(node.residue().values())


async def test_post_opens_no_session_and_preflights_are_answered() -> None:
    async with running() as node, aiohttp.ClientSession() as http:
        url = f"{node.url}/socket.io/?EIO=4&transport=polling"
        async with http.post(url, data="40") as response:
            assert response.status == 400
        async with http.options(url, headers={"Origin": node.url}) as response:
            assert response.status == 204
            assert "POST" in response.headers["Access-Control-Allow-Methods"]


async def test_polling_is_refused_if_not_configured() -> None:
    async with polling({"server.transports": ["websocket"]}) as (node, poller):
        assert (await poller.get())[0] == 400
        client = await RawClient.connect(node.port, node.token())
        client.cut()
        await node.until_empty()
