"""An order book on the client: sorted, exact, and verified by the server's checksum."""

import zlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from decimal import Context, Decimal
from typing import TypeVar, Union

from client_sdk.contract import BookMessage, Position

Levels = list[tuple[Decimal, Decimal]]
ResultT = TypeVar("ResultT")

CHECKSUM_LEVELS = 10
# A price has at most 40 digits on each side of its point: no sum of two is ever rounded.
_EXACT = Context(prec=100)


class _Side:
    """The levels of one side: keyed by price, sorted best first, spelled as the server does."""

    __slots__ = ("_descending", "_keys", "_levels")

    def __init__(self, *, descending: bool) -> None:
        self._descending = descending
        # Bid keys are negated, so that both sides sort best first.
        self._keys: list[Decimal] = []
        self._levels: dict[Decimal, tuple[str, str]] = {}

    def _price(self, key: Decimal) -> Decimal:
        # Unary minus would round to the context's precision.
        return key.copy_negate() if self._descending else key

    def best(self) -> Decimal | None:
        return self._price(self._keys[0]) if self._keys else None

    def best_quantity(self) -> Decimal | None:
        return Decimal(self._levels[self._keys[0]][1]) if self._keys else None

    def copy(self) -> "_Side":
        copied = _Side(descending=self._descending)
        copied._keys, copied._levels = self._keys.copy(), self._levels.copy()
        return copied

    def as_decimals(self) -> Levels:
        levels = self._levels
        return [(self._price(key), Decimal(levels[key][1])) for key in self._keys]

    def as_text(self, count: int) -> list[tuple[str, str]]:
        levels = self._levels
        return [levels[key] for key in self._keys[:count]]

    def update(self, changes: Iterable[tuple[str, str]]) -> None:
        """Set absolute quantities; 0 removes a level."""
        levels = self._levels
        for price, quantity in changes:
            number = Decimal(price)
            key = number.copy_negate() if self._descending else number
            if quantity.strip("0."):
                if key not in levels:
                    insort(self._keys, key)
                levels[key] = (price, quantity)
            elif levels.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]


class Book:
    """Applies the messages of one book's topic; after a refused one it needs a snapshot."""

    __slots__ = ("_asks", "_bids", "_position", "symbol")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._position: Position | None = None
        self._clear()

    def _clear(self) -> None:
        self._bids = _Side(descending=True)
        self._asks = _Side(descending=False)

    def __repr__(self) -> str:
        return f"<Book {self.symbol} {self.best_bid} | {self.best_ask}>"

    @property
    def position(self) -> Position | None:
        """The position of the levels; None while they are unreliable."""
        return self._position

    @property
    def bids(self) -> Levels:
        """Prices and quantities, highest price first."""
        return self._bids.as_decimals()

    @property
    def asks(self) -> Levels:
        """Prices and quantities, lowest price first."""
        return self._asks.as_decimals()

    @property
    def best_bid(self) -> Decimal | None:
        """The highest bid price; None while there are no bids."""
        return self._bids.best()

    @property
    def best_ask(self) -> Decimal | None:
        """The lowest ask price; None while there are no asks."""
        return self._asks.best()

    @property
    def mid(self) -> Decimal | None:
        """The exact middle of best bid and best ask; None while a side is empty."""
        bid, ask = self._bids.best(), self._asks.best()
        if bid is None or ask is None:
            return None
        return _EXACT.multiply(_EXACT.add(bid, ask), Decimal("0.5"))

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid, exact; None while a side is empty."""
        bid, ask = self._bids.best(), self._asks.best()
        return None if bid is None or ask is None else _EXACT.subtract(ask, bid)

    @property
    def microprice(self) -> Decimal | None:
        """The mid weighted by the opposite quantities at the best prices, to 28 digits.

        None while a side is empty.
        """
        bid, ask = self._bids.best(), self._asks.best()
        bid_quantity, ask_quantity = self._bids.best_quantity(), self._asks.best_quantity()
        if bid is None or ask is None or bid_quantity is None or ask_quantity is None:
            return None
        return (bid * ask_quantity + ask * bid_quantity) / (bid_quantity + ask_quantity)

    @property
    def imbalance(self) -> Decimal | None:
        """The quantity at the best bid, less that at the best ask, as a share of both.

        From -1 (asks only) to 1 (bids only), to 28 digits; None while a side is empty.
        """
        bid, ask = self._bids.best_quantity(), self._asks.best_quantity()
        if bid is None or ask is None:
            return None
        return (bid - ask) / (bid + ask)

    def copy(self) -> "Book":
        """A book that later messages of this one do not change."""
        copied = Book(self.symbol)
        copied._bids, copied._asks = self._bids.copy(), self._asks.copy()
        copied._position = self._position
        return copied

    def checksum(self) -> int:
        """The CRC32 of the best levels, as defined in docs/protocol.md."""
        bids = self._bids.as_text(CHECKSUM_LEVELS)
        asks = self._asks.as_text(CHECKSUM_LEVELS)
        words: list[str] = []
        for rank in range(CHECKSUM_LEVELS):
            for side in (bids, asks):
                if rank < len(side):
                    words += side[rank]
        return zlib.crc32(":".join(words).encode())

    def apply(self, message: BookMessage) -> bool:
        """Apply a message; False if the book is out of step and needs a snapshot."""
        position = self._position
        if position is not None and position.epoch == message.epoch:
            if message.seq <= position.seq:
                return True
            # Quantities are absolute, so applying a known change again does no harm.
            follows = message.type == "update" and message.prev <= position.seq
        else:
            follows = False
        if message.type == "snapshot":
            self._clear()
        elif not follows:
            self._position = None
            return False
        self._bids.update(message.data.bids)
        self._asks.update(message.data.asks)
        checksum = message.data.checksum
        matches = checksum is None or checksum == self.checksum()
        self._position = Position(epoch=message.epoch, seq=message.seq) if matches else None
        return matches


class BookView:
    """The read-only properties of a book that is kept elsewhere and keeps changing."""

    __slots__ = ()

    def _read(self, getter: Callable[[Union[Book, "BookView"]], ResultT]) -> ResultT:
        raise NotImplementedError

    @property
    def bids(self) -> Levels:
        """Prices and quantities, highest price first."""
        return self._read(lambda book: book.bids)

    @property
    def asks(self) -> Levels:
        """Prices and quantities, lowest price first."""
        return self._read(lambda book: book.asks)

    @property
    def best_bid(self) -> Decimal | None:
        """The highest bid price; None while there are no bids."""
        return self._read(lambda book: book.best_bid)

    @property
    def best_ask(self) -> Decimal | None:
        """The lowest ask price; None while there are no asks."""
        return self._read(lambda book: book.best_ask)

    @property
    def mid(self) -> Decimal | None:
        """The exact middle of best bid and best ask; None while a side is empty."""
        return self._read(lambda book: book.mid)

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid, exact; None while a side is empty."""
        return self._read(lambda book: book.spread)

    @property
    def microprice(self) -> Decimal | None:
        """The mid weighted by the opposite quantities; None while a side is empty."""
        return self._read(lambda book: book.microprice)

    @property
    def imbalance(self) -> Decimal | None:
        """The share by which best bids outweigh best asks, -1 to 1; None while a side is empty."""
        return self._read(lambda book: book.imbalance)

    @property
    def position(self) -> Position | None:
        """The position of the levels; None while they are unreliable."""
        return self._read(lambda book: book.position)

    def checksum(self) -> int:
        """The CRC32 of the best levels, as defined in docs/protocol.md."""
        return self._read(lambda book: book.checksum())
