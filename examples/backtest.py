"""Runs one strategy on recorded data, or live: it buys above the mean of the last trades.

pip install 'floorcast[data]'
python examples/backtest.py FILE...             # of save_trades.py, or of `floorcast record`
python examples/backtest.py http://127.0.0.1:8000 TOKEN
"""

import asyncio
import contextlib
import sys
from collections import deque
from decimal import Decimal

from floorcast import Client, Gap, Market
from floorcast.data import Replay, ReplayMarket

SYMBOL = "BTCUSDT"
TRADES = 20


async def trade(market: Market | ReplayMarket) -> None:
    """Hold one unit while the price is above the mean; prints each deal and the result."""
    prices: deque[Decimal] = deque(maxlen=TRADES)
    profit, bought_at = Decimal(0), None
    async for item in market.trades(SYMBOL):
        if isinstance(item, Gap):
            # What was missed may be anything: begin again.
            prices.clear()
            continue
        for each in item.data.trades:
            price = Decimal(each.price)
            prices.append(price)
            is_above = price * len(prices) > sum(prices)
            if is_above and bought_at is None and len(prices) == TRADES:
                bought_at = price
            elif not is_above and bought_at is not None:
                profit += price - bought_at
                print(f"bought at {bought_at}, sold at {price}: {profit:+} in all", flush=True)
                bought_at = None
    print(f"the result is {profit:+}", flush=True)


async def main(words: list[str]) -> None:
    """Trade on files, or on a server until Ctrl-C."""
    if words[0].startswith("http"):
        async with Client(words[0], token=words[1]) as client:
            await trade(client.market)
    else:
        async with Replay(*words) as replay:
            await trade(replay.market)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(sys.argv[1:]))
