"""Keeps an order book, and prints its best levels and its status after each change.

python examples/keep_book.py http://127.0.0.1:8000 TOKEN [SYMBOL]
"""

import asyncio
import contextlib
import sys

from floorcast import Client


async def main(url: str, token: str, symbol: str) -> None:
    """Print until Ctrl-C."""
    async with Client(url, token=token) as client, client.market.book(symbol) as book:
        async for state in book:
            spread = f"{state.best_bid} | {state.best_ask}"
            levels = f"{len(state.bids)} + {len(state.asks)} levels"
            print(f"{state.status} {spread}, mid {state.mid}, {levels}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], (sys.argv[3:] or ["BTCUSDT"])[0]))
