"""Keeps what ccxt has taken in until it is published: new prices and books, and all trades."""

import asyncio
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# By the venue's symbol; ccxt's own structures have no types.
Ticker = Mapping[str, Any]
Trade = Mapping[str, Any]

_MAX_TRADES = 50_000


class TooSlow(Exception):
    """Trades arrive faster than they can be published."""


class Updates:
    """What has changed since it was taken; one task waits for it."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._failure: Exception | None = None
        self._tickers: dict[str, Ticker] = {}
        self._books: dict[str, None] = {}
        self._trades: deque[Trade] = deque()
        self._last_trades: dict[str, Trade] = {}
        # Why books are out of step, by ccxt's name of what they are watched by.
        self._lost_books: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._tickers or self._books or self._trades)

    def add_ticker(self, ticker: Ticker) -> None:
        """Record a new price; an older one that was not taken is replaced."""
        if (symbol := ticker.get("symbol")) is not None:
            self._tickers[symbol] = ticker
            self._changed.set()

    def add_book(self, symbol: str) -> None:
        """Record that a book has changed."""
        self._books[symbol] = None
        self._changed.set()

    def add_trades(self, kept: Sequence[Trade]) -> None:
        """Record the trades at the end of ccxt's cache that were not there before."""
        if not kept:
            return
        symbol = kept[-1]["symbol"]
        last = self._last_trades.get(symbol)
        new: list[Trade] = []
        for index in range(len(kept) - 1, -1, -1):
            if kept[index] is last:
                break
            new.append(kept[index])
        self._last_trades[symbol] = kept[-1]
        self._trades.extend(reversed(new))
        if len(self._trades) > _MAX_TRADES:
            self.fail(TooSlow(f"more than {_MAX_TRADES} trades wait to be published"))
        self._changed.set()

    def lose_book(self, message_hash: str, reason: str) -> None:
        """Record that ccxt found a book wrong; `message_hash` contains its symbol."""
        self._lost_books[message_hash] = reason

    def pop_lost_books(self, symbols: Iterable[str]) -> dict[str, str]:
        """Take those of these symbols whose books were found wrong, and the reasons."""
        lost = {}
        if self._lost_books:
            for symbol in symbols:
                for each in [each for each in self._lost_books if _names(each, symbol)]:
                    lost[symbol] = self._lost_books.pop(each)
        return lost

    def fail(self, failure: Exception) -> None:
        """Make `wait` raise; the first failure counts."""
        self._failure = self._failure or failure
        self._changed.set()

    async def wait(self) -> None:
        """Return if something has changed; raises the failure."""
        await self._changed.wait()
        if self._failure is not None:
            raise self._failure
        self._changed.clear()

    def pop_ticker(self) -> Ticker | None:
        """Take the next new price; None if there is none."""
        return self._tickers.pop(next(iter(self._tickers))) if self._tickers else None

    def pop_book(self) -> str | None:
        """Take the symbol of the next changed book; None if there is none."""
        if not self._books:
            return None
        del self._books[symbol := next(iter(self._books))]
        return symbol

    def pop_trade(self) -> Trade | None:
        """Take the next trade; None if there is none."""
        return self._trades.popleft() if self._trades else None


def _names(message_hash: str, symbol: str) -> bool:
    """Whether this is about the symbol, and not about one that begins alike, as BTC/USD:USD."""
    return re.search(rf"(^|[^A-Z0-9]){re.escape(symbol)}($|[^A-Z0-9:/-])", message_hash) is not None
