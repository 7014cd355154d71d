"""Tests permessage-deflate: negotiated only if configured, compressed once per message."""

import zlib

import pytest

from tests.kit.clients.wire import RawClient, masked
from tests.kit.server.in_process import PRICE, running

OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


async def test_negotiated_compression_works_both_ways() -> None:
    async with running({"server.compression": True}) as node:
        client = await RawClient.open(node.port, headers=OFFER)
        plain = await RawClient.connect(node.port, node.token("bob"))
        await client.text()
        await client.join(node.token())
        deflater = zlib.compressobj(wbits=-15)
        request = b'42/market,7["subscribe",{"topics":["PRICE:A"]}]'
        compressed = (deflater.compress(request) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
        client.send_bytes(masked(compressed, first=0xC1))
        assert (await client.text()).startswith("43/market,7")
        await plain.call("subscribe", {"topics": ["PRICE:A"]})
        for _ in range(2):
            await node.server.market.publishing.publish("PRICE:A", {**PRICE, "note": "x" * 200})
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
        await node.until_empty()


@pytest.mark.parametrize(
    ("setting", "offer"),
    [
        (False, OFFER),
        (True, ""),
        (True, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n"),
        (True, "Sec-WebSocket-Extensions: x-webkit-deflate-frame\r\n"),
    ],
)
async def test_nothing_is_compressed_without_negotiation(setting: bool, offer: str) -> None:
    async with running({"server.compression": setting}) as node:
        client = await RawClient.open(node.port, headers=offer)
        await client.text()
        await client.join(node.token())
        assert node.server.sockets.connections()[0].deflates is False
        client.send_bytes(masked(b"4", first=0xC1))
        await client.until_closed()
        await node.until_empty()
