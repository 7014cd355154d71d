"""Publishes a price every second.

python examples/publish_prices.py http://127.0.0.1:8000 TOKEN SYMBOL [COUNT]

The token needs the scope `market:publish`; the demo prints one, the publisher's.
"""

import asyncio
import contextlib
import random
import sys
from decimal import Decimal

from floorcast import Client, FloorcastError


async def main(url: str, token: str, symbol: str, count: int) -> None:
    """Publish a random walk, and print each position."""
    price = Decimal("100.00")
    async with Client(url, token=token) as client:
        for number in range(count):
            if number:
                await asyncio.sleep(1)
            price += Decimal(random.randint(-20, 20)) / 100
            # Text keeps every digit.
            data = {
                "bid": str(price - Decimal("0.01")),
                "ask": str(price + Decimal("0.01")),
                "last": str(price),
                "volume": "1.0",
            }
            try:
                position = await client.market.publish(f"PRICE:{symbol}", data)
                print(price, position, flush=True)
            except FloorcastError as error:
                print(price, error, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int((sys.argv[4:] or ["1000"])[0])))
