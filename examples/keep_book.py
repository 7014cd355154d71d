"""Keeps an order book: its best levels after each change, and whether they can be relied on.

python examples/keep_book.py http://127.0.0.1:8000 TOKEN [SYMBOL]
"""

import asyncio
import contextlib
import sys

from client_sdk import Client


async def main(url: str, token: str, symbol: str) -> None:
    """Print until Ctrl-C."""
    async with Client(url, token=token) as client, client.market.book(symbol) as book:
        async for now in book:
            spread = f"{now.best_bid} | {now.best_ask}"
            levels = f"{len(now.bids)} + {len(now.asks)} levels"
            print(f"{now.status} {spread}, mid {now.mid}, {levels}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], (sys.argv[3:] or ["BTCUSDT"])[0]))
