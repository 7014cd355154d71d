"""What the readers of an order book see of it, wherever the book itself is kept."""

from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar, Union

from client_sdk.contract import Position
from client_sdk.market.book import Book

Levels = list[tuple[Decimal, Decimal]]
ResultT = TypeVar("ResultT")


class BookView:
    """A book that goes on changing: each look is at what it is at that moment."""

    __slots__ = ()

    def _read(self, getter: Callable[[Union[Book, "BookView"]], ResultT]) -> ResultT:
        raise NotImplementedError

    @property
    def bids(self) -> Levels:
        """Prices and quantities, the highest price first."""
        return self._read(lambda book: book.bids)

    @property
    def asks(self) -> Levels:
        """Prices and quantities, the lowest price first."""
        return self._read(lambda book: book.asks)

    @property
    def best_bid(self) -> Decimal | None:
        """The highest price that somebody would pay."""
        return self._read(lambda book: book.best_bid)

    @property
    def best_ask(self) -> Decimal | None:
        """The lowest price that somebody would take."""
        return self._read(lambda book: book.best_ask)

    @property
    def mid(self) -> Decimal | None:
        """Half way between the two; None while a side is empty."""
        return self._read(lambda book: book.mid)

    @property
    def position(self) -> Position | None:
        """The message that the levels are as of."""
        return self._read(lambda book: book.position)

    def checksum(self) -> int:
        """CRC32 of the best levels, by the rule of the protocol."""
        return self._read(lambda book: book.checksum())
