"""A random walk of prices that comes out the same for the same seed."""

import random
from decimal import Decimal

_SPREAD_TICKS = (1, 4)


class RandomWalk:
    """The price of one symbol, moving by whole ticks, always above zero."""

    def __init__(self, symbol: str, *, seed: int, start: Decimal, tick: Decimal) -> None:
        # One stream of numbers a symbol: adding a symbol leaves the others as they were.
        self._random = random.Random(f"{seed}/{symbol}")
        self._tick = tick
        self._ticks = int(start / tick)
        self._volume = 0

    def step(self) -> dict[str, object]:
        """The next PRICE data, as exact decimal strings."""
        draw = self._random
        reach = max(1, self._ticks // 5000)
        self._ticks = max(10, self._ticks + draw.randint(-reach, reach))
        spread = draw.randint(*_SPREAD_TICKS)
        self._volume += draw.randint(1, 500)
        bid = self._ticks
        ask = bid + spread
        last = draw.choice((bid, ask))
        return {
            "bid": _plain(bid * self._tick),
            "ask": _plain(ask * self._tick),
            "last": _plain(last * self._tick),
            "volume": _plain(Decimal(self._volume) / 100),
        }


def _plain(number: Decimal) -> str:
    # `str` would write a small one with an exponent.
    return format(number, "f")
