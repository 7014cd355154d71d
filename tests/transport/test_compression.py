"""Deflate is off unless a setting and the client want it; then each message is squeezed once."""

import zlib

import pytest

from tests.kit.clients.wire import RawClient, masked
from tests.kit.server.in_process import PRICE, running

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


async def test_compressed_messages_go_both_ways_where_negotiated() -> None:
    async with running({"server.compression": True}) as floor:
        client = await RawClient.open(floor.port, headers=OFFER)
        plain = await RawClient.connect(floor.port, floor.token("bob"))
        await client.text()
        await client.join(floor.token())
        deflater = zlib.compressobj(wbits=-15)
        request = b'42/market,7["subscribe",{"topics":["PRICE:A"]}]'
        squeezed = (deflater.compress(request) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
        client.send_bytes(masked(squeezed, first=0xC1))
        assert (await client.text()).startswith("43/market,7")
        await plain.call("subscribe", {"topics": ["PRICE:A"]})
        for _ in range(2):
            await floor.server.publishing.publish("PRICE:A", {**PRICE, "note": "x" * 200})
        for _ in range(2):
            head = await client.reader.readexactly(2)
            assert head[0] == 0xC1
            assert head[1] < 250
            payload = await client.reader.readexactly(head[1] if head[1] < 126 else 0) or (
                await client.reader.readexactly(
                    int.from_bytes(await client.reader.readexactly(2), "big")
                )
            )
            text = zlib.decompressobj(wbits=-15).decompress(payload + b"\x00\x00\xff\xff")
            assert text.startswith(b'42/market,["price",')
            assert (await plain.event())[0] == "price"
        for each in (client, plain):
            each.cut()
        await floor.until_empty()


@pytest.mark.parametrize(
    ("setting", "offer"),
    [
        (False, OFFER),
        (True, ""),
        (True, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n"),
        (True, "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n"),
    ],
)
async def test_otherwise_nothing_is_compressed(setting: bool, offer: str) -> None:
    async with running({"server.compression": setting}) as floor:
        client = await RawClient.open(floor.port, headers=offer)
        await client.text()
        await client.join(floor.token())
        assert floor.server.sockets.connections()[0].deflates is False
        client.send_bytes(masked(b"4", first=0xC1))
        await client.until_closed()
        await floor.until_empty()
