"""A market that is made up: random walks for a handful of symbols, at a steady pace."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal

from client_sdk.contract import Stream
from server.feeds.walk import RandomWalk
from server.ports import Clock, Publishing

# Where each price begins, and its smallest step.
SYMBOLS: Mapping[str, tuple[str, str]] = {
    "BTCUSDT": ("64250.00", "0.01"),
    "ETHUSDT": ("3120.00", "0.01"),
    "SOLUSDT": ("148.500", "0.001"),
    "EURUSD": ("1.08500", "0.00001"),
    "AAPL": ("228.40", "0.01"),
}


class SimulatedFeed:
    """Publishes one update of one symbol after the other, `rate` of them a second."""

    def __init__(
        self,
        clock: Clock,
        *,
        symbols: Mapping[str, tuple[str, str]] = SYMBOLS,
        seed: int = 1,
        rate_per_second: float = 20.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if not symbols or rate_per_second <= 0:
            # Without either, `run` would spin and never let go of the loop.
            raise ValueError("a market needs symbols, and a rate above zero")
        self._clock = clock
        self._pause = 1.0 / rate_per_second
        self._sleep = sleep
        self._walks = {
            symbol: RandomWalk(symbol, seed=seed, start=Decimal(start), tick=Decimal(tick))
            for symbol, (start, tick) in symbols.items()
        }

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled."""
        due = self._clock.monotonic()
        while True:
            for symbol, walk in self._walks.items():
                await publishing.publish(f"{Stream.PRICE.value}:{symbol}", walk.step())
                due += self._pause
                wait = due - self._clock.monotonic()
                # After a long stall the lost time is let go: a burst would be no market.
                if wait < -1.0:
                    due -= wait
                await self._sleep(max(0.0, wait))
