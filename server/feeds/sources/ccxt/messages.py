"""Writes ccxt's tickers, trades and books as the data of messages."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Any

from server.feeds.sources.ccxt.markets import VenueMarket
from server.feeds.sources.messages import SourceMessage, UnreadableMessage

Level = tuple[str, str]


@lru_cache(maxsize=100_000)
def exact_text(number: Decimal | float | str, step: str | None) -> str:
    """A number with at least the decimals of a step such as "0.01"; no digit of it is lost."""
    exact = Decimal(str(number))
    if not exact.is_finite():
        raise UnreadableMessage(f"{number} is no number")
    text = format(exact, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    wanted = 0 if step is None or "." not in step else len(step.rstrip("0")) - step.index(".") - 1
    point = text.find(".")
    lacking = wanted - (0 if point < 0 else len(text) - point - 1)
    if lacking > 0:
        text += ("." if point < 0 else "") + "0" * lacking
    return text


def levels(side: Iterable[Sequence[Any]], market: VenueMarket) -> list[Level]:
    """One side of ccxt's book."""
    return [
        (exact_text(price, market.tick_size), exact_text(quantity, market.lot_size))
        for price, quantity, *_ in side
    ]


def price_message(
    ticker: Mapping[str, Any], best_bid: object, best_ask: object, market: VenueMarket
) -> SourceMessage:
    """The message of a ticker; one without a bid or ask has those of the book.

    Raises `UnreadableMessage` if a price is missing.
    """
    last = ticker.get("last")
    bid = ticker.get("bid") if ticker.get("bid") is not None else best_bid
    ask = ticker.get("ask") if ticker.get("ask") is not None else best_ask
    if bid is None or ask is None or last is None:
        raise UnreadableMessage(f"the ticker of {market.symbol} has no bid, ask or last price")
    data: dict[str, object] = {
        "bid": _text(bid, market.tick_size),
        "ask": _text(ask, market.tick_size),
        "last": _text(last, market.tick_size),
        "volume": _text(ticker.get("baseVolume") or 0, market.lot_size),
    }
    for name in ("high", "low"):
        if ticker.get(name) is not None:
            data[name] = _text(ticker[name], market.tick_size)
    return SourceMessage(f"PRICE:{market.symbol}", data, source_ts=ticker.get("timestamp"))


def trade_message(trade: Mapping[str, Any], market: VenueMarket) -> SourceMessage:
    """The message of one trade, the same on each node; raises `UnreadableMessage`."""
    ts_ms = trade.get("timestamp")
    if not isinstance(ts_ms, int):
        raise UnreadableMessage(f"a trade of {market.symbol} has no time")
    # If the venue has no ids of trades, clients still tell them apart.
    made_up = f"{ts_ms}-{trade['price']}-{trade['amount']}"
    deal = {
        "id": str(trade.get("id") or made_up),
        "price": _text(trade["price"], market.tick_size),
        "qty": _text(trade["amount"], market.lot_size),
        "side": trade.get("side"),
        "ts": ts_ms,
    }
    return SourceMessage(f"TRADES:{market.symbol}", {"trades": [deal]}, source_ts=ts_ms)


def published_trade(data: Mapping[str, Any] | None, venue_symbol: str) -> Mapping[str, Any] | None:
    """The newest trade of a published message, as ccxt has trades; None if it has none."""
    if data is None or not data.get("trades"):
        return None
    deal = data["trades"][-1]
    return {"symbol": venue_symbol, "id": str(deal["id"]), "timestamp": deal["ts"]}


def _text(number: Any, step: str | None) -> str:
    return exact_text(number, step)
