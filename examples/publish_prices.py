"""Publishes a price every second with the stock Socket.IO client for Python.

python examples/publish_prices.py http://127.0.0.1:8000 TOKEN SYMBOL [COUNT]

The token needs the scope `market:publish`; the demo prints one, the publisher's.
"""

import asyncio
import contextlib
import random
import sys
import uuid
from decimal import Decimal

import socketio


async def main(url: str, token: str, symbol: str, count: int) -> None:
    """Walk a price at random, and say where each went."""
    client = socketio.AsyncClient()
    await client.connect(url, namespaces=["/market"], auth={"token": token, "recovery": False})
    price = Decimal("100.00")
    for _ in range(count):
        price += Decimal(random.randint(-20, 20)) / 100
        message = {
            "topic": f"PRICE:{symbol}",
            # Text, so that no digit is lost on the way.
            "data": {
                "bid": str(price - Decimal("0.01")),
                "ask": str(price + Decimal("0.01")),
                "last": str(price),
                "volume": "1.0",
            },
            # Sent again after a lost answer, it would not be published twice.
            "id": uuid.uuid4().hex,
        }
        reply = await client.call("publish", {"messages": [message]}, namespace="/market")
        print(price, reply["positions"][0] if reply["ok"] else reply["error"])
        await asyncio.sleep(1)
    await client.disconnect()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int((sys.argv[4:] or ["1000"])[0])))
