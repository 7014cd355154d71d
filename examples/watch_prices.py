"""Prints prices as they change, through lost connections and restarts.

python examples/watch_prices.py http://127.0.0.1:8000 TOKEN [SYMBOL ...]
"""

import asyncio
import contextlib
import sys

from floorcast import Client


async def main(url: str, token: str, symbols: list[str]) -> None:
    """Print until Ctrl-C."""
    async with Client(url, token=token) as client:
        client.on_state(lambda state: print("*", state.value, flush=True))
        async for tick in client.market.prices(*symbols):
            age_ms = tick.age * 1000
            print(f"{tick.symbol} {tick.data.last} #{tick.seq}, {age_ms:.0f} ms old", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3:] or ["BTCUSDT", "ETHUSDT"]))
