"""The markets of a venue: which symbols they have here, and their reference data."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from client_sdk.contract import SYMBOL_PATTERN
from server.feeds.errors import FeedError

_SYMBOL = re.compile(SYMBOL_PATTERN)
_MAX_NAMED = 5
# ccxt's constants; to import it takes a second.
_DECIMAL_PLACES, _SIGNIFICANT_DIGITS = 2, 3


@dataclass(frozen=True, slots=True)
class VenueMarket:
    """One market: ccxt's symbol, that of the topics, and the kind that one call of ccxt is for."""

    venue_symbol: str
    symbol: str
    kind: tuple[object, ...]
    tick_size: str | None
    lot_size: str | None
    instrument: Mapping[str, object] = field(repr=False)


def choose_markets(
    venue: str, markets: Mapping[str, Any], names: Sequence[str], precision_mode: int
) -> dict[str, VenueMarket]:
    """The markets with these names, by ccxt's symbols; all active ones without names.

    Topics have capital letters. Raises `FeedError` if the venue does not have one of them.
    """
    known = {symbol.upper(): market for symbol, market in markets.items()}
    if not names:
        active = [name for name, each in known.items() if each.get("active") is not False]
        names = [name for name in active if _SYMBOL.match(name)]
    missing = [name for name in names if name.upper() not in known]
    if missing:
        raise FeedError(f"{venue} has no {_listed(missing)}, only {_listed(sorted(known))}")
    found = (_market(known[name.upper()], precision_mode) for name in names)
    return {each.venue_symbol: each for each in found}


def _listed(names: Sequence[str]) -> str:
    listed = ", ".join(names[:_MAX_NAMED])
    return listed if len(names) <= _MAX_NAMED else f"{listed} and {len(names) - _MAX_NAMED} more"


def _market(market: Mapping[str, Any], precision_mode: int) -> VenueMarket:
    precision = market.get("precision") or {}
    tick_size = _step(precision.get("price"), precision_mode)
    lot_size = _step(precision.get("amount"), precision_mode)
    instrument: dict[str, object] = {
        "base": market.get("base"),
        "quote": market.get("quote"),
        "tick_size": tick_size,
        "lot_size": lot_size,
        "type": market.get("type"),
        "status": "HALTED" if market.get("active") is False else "OPEN",
    }
    if market.get("settle"):
        instrument["settle"] = market["settle"]
    return VenueMarket(
        market["symbol"],
        market["symbol"].upper(),
        (market.get("type"), market.get("linear"), market.get("inverse")),
        tick_size,
        lot_size,
        {name: value for name, value in instrument.items() if value is not None},
    )


def _step(precision: object, mode: int) -> str | None:
    """The smallest step of a number; None if the venue counts significant digits."""
    if precision is None or mode == _SIGNIFICANT_DIGITS:
        return None
    exact = Decimal(str(precision))
    if mode == _DECIMAL_PLACES:
        exact = Decimal(1).scaleb(-int(exact))
    return format(exact, "f") if exact > 0 else None


def by_kind(markets: Iterable[VenueMarket], size: int) -> list[list[VenueMarket]]:
    """Groups of at most so many markets of one kind."""
    kinds: dict[tuple[object, ...], list[VenueMarket]] = {}
    for each in markets:
        kinds.setdefault(each.kind, []).append(each)
    return [
        group[index : index + size]
        for group in kinds.values()
        for index in range(0, len(group), size)
    ]
