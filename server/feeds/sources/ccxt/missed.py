"""Fetches by REST the trades that a venue made while its stream was away."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from server.feeds.sources.ccxt.options import CcxtOptions
from server.feeds.sources.ccxt.updates import Trade

_PAGE = 1000
# ccxt and venues round the times of requests, and REST and stream can round those of a trade.
_OVERLAP_MS = 1000
# Binance's REST of a time has ids of its own; that of the newest trades has the stream's.
_NEWEST_TRADES = {"linear": "fapiPublicGetTrades", "inverse": "dapiPublicGetTrades"}
_NEWEST_SPOT_TRADES = "publicGetTrades"


@dataclass(frozen=True, slots=True)
class Missed:
    """Trades that were missed, oldest first; for how long others may be missing, and why."""

    trades: list[Trade]
    missing_ms: int = 0
    reason: str = ""


def has_order(trade: Trade) -> bool:
    """Whether a trade has an id and a time."""
    return trade.get("id") is not None and isinstance(trade.get("timestamp"), int)


def trade_order(trade: Trade) -> tuple[int, int, str]:
    """Sorts trades by time, and those of one time by id: ids count up, and are text."""
    trade_id = str(trade["id"])
    return trade["timestamp"], len(trade_id), trade_id


async def fetch_missed(
    exchange: Any,
    options: CcxtOptions,
    turns: asyncio.Semaphore,
    last: Trade,
    first: Trade | None,
    now_ms: int,
) -> Missed:
    """The trades after the last published one; a failure of REST is a reason, not an exception.

    `first` is the first trade of the new connection, None if there is none yet. The time limit
    includes the wait for one of the `turns`.
    """
    found: dict[str, Trade] = {}
    oldest_ms = now_ms - int(options.trade_seconds * 1000)
    failure = ""
    try:
        async with asyncio.timeout(options.timeout_seconds), turns:
            await _fetch(exchange, options.fill_trades, last, first, oldest_ms, found)
    except TimeoutError:
        failure = f"it took longer than {options.timeout_seconds:g} s"
    except Exception as error:
        # A malformed answer makes ccxt raise any kind of them.
        failure = f"{type(error).__name__}: {error}"
    else:
        if len(found) >= options.fill_trades:
            failure = f"there are more than {options.fill_trades} trades"
    trades = sorted(found.values(), key=trade_order)
    if _has_other_ids(trades, last):
        trades, failure = [], "the ids of its REST are not those of its stream"
    return _missed(trades, last, first, oldest_ms, now_ms, failure)


def _has_other_ids(trades: Sequence[Trade], last: Trade) -> bool:
    """Whether REST has the time of the last published trade, but not the trade."""
    if not trades or any(str(each["id"]) == str(last["id"]) for each in trades):
        return False
    return bool(trades[0]["timestamp"] < last["timestamp"] < trades[-1]["timestamp"])


def _missed(
    trades: Sequence[Trade],
    last: Trade,
    first: Trade | None,
    oldest_ms: int,
    now_ms: int,
    failure: str,
) -> Missed:
    ids = {str(each["id"]) for each in trades}
    after = [each for each in trades if trade_order(each) > trade_order(last)]
    new = [each for each in after if each["timestamp"] >= oldest_ms]
    gaps: list[int] = []
    if new and (str(last["id"]) not in ids or len(new) < len(after)):
        gaps.append(new[0]["timestamp"] - last["timestamp"])
    newest_ms = (new[-1] if new else last)["timestamp"]
    if first is None:
        if failure:
            gaps.append(now_ms - newest_ms)
    elif str(first["id"]) not in ids:
        gaps.append(first["timestamp"] - newest_ms)
    if not gaps:
        return Missed(new)
    return Missed(new, sum(gaps), failure or "its REST does not have all of them")


async def _fetch(
    exchange: Any,
    most: int,
    last: Trade,
    first: Trade | None,
    oldest_ms: int,
    found: dict[str, Trade],
) -> None:
    """Add to what was found, page by page, until the new connection's first trade."""
    symbol = last["symbol"]
    limit = exchange.feature_value(symbol, "fetchTrades", "limit") or _PAGE
    params = _params(exchange, symbol)
    since_ms = last["timestamp"] - _OVERLAP_MS
    while len(found) < most:
        page = await exchange.fetch_trades(
            symbol,
            since=None if params else since_ms,
            limit=min(limit, _PAGE, most),
            params=dict(params),
        )
        new = {str(each["id"]): each for each in page if has_order(each)}
        if new.keys() <= found.keys():
            return
        found.update(new)
        if first is not None and str(first["id"]) in found:
            return
        # Trades that are too old are not published.
        since_ms = max(oldest_ms, *(each["timestamp"] for each in new.values()))


def _params(exchange: Any, symbol: str) -> Mapping[str, object]:
    if not exchange.id.startswith("binance"):
        return {}
    sub_type = exchange.market(symbol).get("subType")
    return {"fetchTradesMethod": _NEWEST_TRADES.get(sub_type, _NEWEST_SPOT_TRADES)}
