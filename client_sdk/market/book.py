"""One order book as a client keeps it: sorted, exact, and sure of itself by its checksum."""

import zlib
from bisect import bisect_left, insort
from collections.abc import Iterable
from decimal import Context, Decimal

from client_sdk.contract import Position
from client_sdk.models import BookMessage

CHECKSUM_LEVELS = 10
# A price has at most 40 digits on each side of its point: no sum of two is ever rounded.
_EXACT = Context(prec=100)


class _Side:
    """The levels of one side: found by price, kept best first, spelled as the server does."""

    __slots__ = ("_descending", "_keys", "_levels")

    def __init__(self, *, descending: bool) -> None:
        self._descending = descending
        # Bids are negated, so that both sides are sorted best first.
        self._keys: list[Decimal] = []
        self._levels: dict[Decimal, tuple[str, str]] = {}

    def _price(self, key: Decimal) -> Decimal:
        # Not the minus sign, which would round to the context's precision.
        return key.copy_negate() if self._descending else key

    def best(self) -> Decimal | None:
        return self._price(self._keys[0]) if self._keys else None

    def as_decimals(self) -> list[tuple[Decimal, Decimal]]:
        levels = self._levels
        return [(self._price(key), Decimal(levels[key][1])) for key in self._keys]

    def as_text(self, count: int) -> list[tuple[str, str]]:
        levels = self._levels
        return [levels[key] for key in self._keys[:count]]

    def update(self, changes: Iterable[tuple[str, str]]) -> None:
        """Take absolute quantities; 0 removes a level."""
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
    """Takes the messages of one book's topic; after a refused one only a snapshot helps."""

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
        """The message that the levels are as of; None while they are not to be relied on."""
        return self._position

    @property
    def bids(self) -> list[tuple[Decimal, Decimal]]:
        """Prices and quantities, the highest price first."""
        return self._bids.as_decimals()

    @property
    def asks(self) -> list[tuple[Decimal, Decimal]]:
        """Prices and quantities, the lowest price first."""
        return self._asks.as_decimals()

    @property
    def best_bid(self) -> Decimal | None:
        """The highest price that somebody would pay."""
        return self._bids.best()

    @property
    def best_ask(self) -> Decimal | None:
        """The lowest price that somebody would take."""
        return self._asks.best()

    @property
    def mid(self) -> Decimal | None:
        """Half way between the two, exactly; None while a side is empty."""
        bid, ask = self._bids.best(), self._asks.best()
        if bid is None or ask is None:
            return None
        return _EXACT.multiply(_EXACT.add(bid, ask), Decimal("0.5"))

    def checksum(self) -> int:
        """CRC32 of the best levels, by the rule of docs/protocol.md."""
        bids = self._bids.as_text(CHECKSUM_LEVELS)
        asks = self._asks.as_text(CHECKSUM_LEVELS)
        words: list[str] = []
        for rank in range(CHECKSUM_LEVELS):
            for side in (bids, asks):
                if rank < len(side):
                    words += side[rank]
        return zlib.crc32(":".join(words).encode())

    def apply(self, message: BookMessage) -> bool:
        """Take a message; False if the book is out of step now and has to be asked for anew."""
        position = self._position
        if position is not None and position.epoch == message.epoch:
            if message.seq <= position.seq:
                return True
            # What reaches back over known changes repeats them: quantities are absolute.
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
        right = checksum is None or checksum == self.checksum()
        self._position = Position(epoch=message.epoch, seq=message.seq) if right else None
        return right
