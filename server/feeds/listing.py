"""The symbols of the simulated market, with start prices and number formats."""

import random
from collections.abc import Iterable
from dataclasses import dataclass

# The number of decimals defines the tick.
_KNOWN = {
    "BTCUSDT": "64250.00",
    "ETHUSDT": "3120.00",
    "SOLUSDT": "148.500",
    "EURUSD": "1.08500",
}
# Further ones with about their prices, if they are named.
_NAMED = {
    "ADAUSDT": "0.45120",
    "ATOMUSDT": "6.1200",
    "AUDUSD": "0.65820",
    "AVAXUSDT": "27.1400",
    "BNBUSDT": "592.40",
    "DOGEUSDT": "0.124800",
    "DOTUSDT": "4.51200",
    "GBPUSD": "1.26450",
    "LINKUSDT": "14.2100",
    "LTCUSDT": "84.300",
    "NEARUSDT": "4.83000",
    "UNIUSDT": "7.6100",
    "USDJPY": "150.120",
    "XAUUSD": "2330.50",
    "XRPUSDT": "0.52310",
}
_LOT_DECIMALS = 3
_QUOTES = ("USDT", "USD", "EUR")
# The minutes of the day between which a symbol is closed: currencies pause in the evening.
_BREAKS = {"EURUSD": (22 * 60, 22 * 60 + 5)}


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol; a tick is a unit of its last decimal."""

    symbol: str
    start_ticks: int
    decimals: int

    def is_open(self, ts_ms: int) -> bool:
        """Whether it is traded at this time; one that has a break pauses each day, by UTC."""
        minute = ts_ms // 60_000 % 1440
        begins, ends = _BREAKS.get(self.symbol, (0, 0))
        return not begins <= minute < ends

    def instrument(self, *, is_open: bool) -> dict[str, object]:
        """Its reference data and trading state."""
        quote = next((each for each in _QUOTES if self.symbol.endswith(each)), "")
        fields: dict[str, object] = {
            "tick_size": self.price(1),
            "lot_size": quantity(1),
            "status": "OPEN" if is_open else "CLOSED",
        }
        if quote and quote != self.symbol:
            fields |= {"base": self.symbol.removesuffix(quote).rstrip("/"), "quote": quote}
        return fields

    def price(self, ticks: int) -> str:
        """The canonical text of a price: clients identify book levels by it."""
        return _fixed_point(ticks, self.decimals)


def quantity(lots: int) -> str:
    """The canonical text of a quantity."""
    return _fixed_point(lots, _LOT_DECIMALS)


def named_listings(names: Iterable[str], *, seed: int) -> list[Listing]:
    """These symbols; the price of one that is not well known depends on the seed."""
    known = _KNOWN | _NAMED
    return [_known(name, known[name]) if name in known else _made_up(name, seed) for name in names]


def listings(count: int, *, seed: int) -> list[Listing]:
    """The first `count` symbols: well-known ones, then generated ones."""
    known = [_known(symbol, start) for symbol, start in _KNOWN.items()]
    made_up = [
        _made_up(f"SYM{number:03d}USDT", seed) for number in range(len(known) + 1, count + 1)
    ]
    return (known + made_up)[:count]


def _known(symbol: str, start: str) -> Listing:
    whole, _, fraction = start.partition(".")
    return Listing(symbol, int(whole + fraction), len(fraction))


def _made_up(symbol: str, seed: int) -> Listing:
    draw = random.Random(f"{seed}/listing/{symbol}")
    return Listing(symbol, draw.randint(50_000, 5_000_000), draw.randint(2, 5))


def _fixed_point(units: int, decimals: int) -> str:
    digits = str(units).zfill(decimals + 1)
    return f"{digits[:-decimals]}.{digits[-decimals:]}"
