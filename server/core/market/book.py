"""One order book: exact levels sorted best first, never crossed, of bounded depth."""

import zlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError, StateError

Levels = Sequence[tuple[str, str]]
CHECKSUM_LEVELS = 10
REMOVED = "0"
# A level's objects and its entries in three tables, without the texts.
_LEVEL_BYTES = 300
# With the longest price and quantity that the contract allows.
MAX_LEVEL_BYTES = _LEVEL_BYTES + 80


@dataclass(frozen=True, slots=True)
class BookChange:
    """The effect of an update: the changed levels, removed ones with quantity 0."""

    bids: Levels
    asks: Levels
    checksum: int
    revert: Callable[[], None] = field(default=lambda: None, repr=False, compare=False)

    def body(self) -> dict[str, object]:
        """The change as clients receive it."""
        return {"bids": self.bids, "asks": self.asks, "checksum": self.checksum}


class _Side:
    """The levels of one side, found by price and sorted best first."""

    __slots__ = ("_key_by_text", "_keys", "_levels", "_negative", "text_bytes")

    def __init__(self, *, descending: bool) -> None:
        self._negative = descending
        self._keys: list[Decimal] = []
        # One spelling of a price as long as its level exists: clients may find it by its text.
        self._levels: dict[Decimal, tuple[str, str]] = {}
        self._key_by_text: dict[str, Decimal] = {}
        # The length of all prices and quantities.
        self.text_bytes = 0

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, price: str) -> Decimal:
        """The sort key of a price: the lowest key is the best price."""
        known = self._key_by_text.get(price)
        if known is not None:
            return known
        number = Decimal(price)
        # Not the minus sign, which would round to the context's precision.
        return number.copy_negate() if self._negative else number

    def best(self) -> Decimal | None:
        if not self._keys:
            return None
        best = self._keys[0]
        return best.copy_negate() if self._negative else best

    def top(self, count: int | None = None) -> list[tuple[str, str]]:
        levels = self._levels
        return [levels[key] for key in self._keys[:count]]

    def fill(self, levels: dict[Decimal, tuple[str, str]], max_levels: int) -> None:
        """Fill the empty side with the best of these levels."""
        self._keys = sorted(levels)[:max_levels]
        self._levels = {key: levels[key] for key in self._keys}
        self._key_by_text = {self._levels[key][0]: key for key in self._keys}

    def get(self, key: Decimal) -> tuple[str, str] | None:
        return self._levels.get(key)

    def put(self, key: Decimal, price: str, quantity: str) -> tuple[str, str]:
        previous = self._levels.get(key)
        if previous is None:
            insort(self._keys, key)
            self._key_by_text[price] = key
            self.text_bytes += len(price)
        else:
            price = previous[0]
            self.text_bytes -= len(previous[1])
        self.text_bytes += len(quantity)
        level = (price, quantity)
        self._levels[key] = level
        return level

    def drop(self, key: Decimal) -> tuple[str, str]:
        level = self._levels.pop(key)
        del self._key_by_text[level[0]]
        self.text_bytes -= len(level[0]) + len(level[1])
        del self._keys[bisect_left(self._keys, key)]
        return level

    def worst(self) -> Decimal:
        return self._keys[-1]


_Undo = list[tuple[_Side, Decimal, tuple[str, str] | None]]


class OrderBook:
    """Applies snapshots and absolute updates; a refused one changes nothing."""

    __slots__ = ("_asks", "_bids", "_max_levels")

    def __init__(self, max_levels: int) -> None:
        self._max_levels = max_levels
        self._clear()

    def _clear(self) -> None:
        self._bids = _Side(descending=True)
        self._asks = _Side(descending=False)

    @property
    def bids(self) -> list[tuple[str, str]]:
        """All bids, the highest first."""
        return self._bids.top()

    @property
    def asks(self) -> list[tuple[str, str]]:
        """All asks, the lowest first."""
        return self._asks.top()

    @property
    def size_bytes(self) -> int:
        """About the memory that the levels take."""
        bids, asks = self._bids, self._asks
        return bids.text_bytes + asks.text_bytes + (len(bids) + len(asks)) * _LEVEL_BYTES

    def snapshot(self) -> BookChange:
        """The whole book."""
        return BookChange(self.bids, self.asks, self.checksum())

    def top(self, count: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The best bids and asks, so many of each."""
        return self._bids.top(count), self._asks.top(count)

    def checksum(self) -> int:
        """The checksum of the best levels."""
        return checksum_of(*self.top(CHECKSUM_LEVELS))

    def apply(
        self, kind: str, bids: Levels, asks: Levels, checksum: int | None = None
    ) -> BookChange:
        """Apply a published message, a `snapshot` or an `update`; raises `RequestError`."""
        if kind == "snapshot":
            return self.replace(bids, asks, checksum)
        return self.update(bids, asks, checksum)

    def replace(self, bids: Levels, asks: Levels, checksum: int | None = None) -> BookChange:
        """Replace the book with these levels; a given checksum must match the result."""
        before = (self._bids, self._asks)

        def revert() -> None:
            self._bids, self._asks = before

        self._clear()
        try:
            self._fill(self._bids, bids)
            self._fill(self._asks, asks)
            self._check(checksum)
        except RequestError:
            revert()
            raise
        return BookChange(self.bids, self.asks, self.checksum(), revert)

    def update(self, bids: Levels, asks: Levels, checksum: int | None = None) -> BookChange:
        """Set the quantities of these levels; 0 removes one."""
        undo: _Undo = []
        try:
            changed_bids = self._set(self._bids, bids, undo)
            changed_asks = self._set(self._asks, asks, undo)
            actual = self._check(checksum)
        except RequestError:
            _revert(undo)
            raise
        return BookChange(changed_bids, changed_asks, actual, lambda: _revert(undo))

    def follow(self, bids: Levels, asks: Levels) -> None:
        """Apply an update that its publisher has validated; cheaper than `update`."""
        for side, levels in ((self._bids, bids), (self._asks, asks)):
            for price, quantity in levels:
                key = side.key(price)
                if quantity.strip("0."):
                    side.put(key, price, quantity)
                elif side.get(key) is not None:
                    side.drop(key)

    def _fill(self, side: _Side, levels: Levels) -> None:
        """Fill an empty side, which costs much less than setting level by level."""
        given: dict[Decimal, tuple[str, str]] = {}
        for price, quantity in levels:
            key = side.key(price)
            if key in given:
                raise _invalid(f"the price {price} appears twice on one side")
            # A new pair: those of JSON are lists, which equal no tuple.
            given[key] = (price, quantity)
        side.fill(
            {key: level for key, level in given.items() if level[1].strip("0.")}, self._max_levels
        )

    def _check(self, checksum: int | None) -> int:
        """The checksum; raises `RequestError` for another one, and for a crossed book."""
        self._check_not_crossed()
        actual = self.checksum()
        if checksum is not None and checksum != actual:
            raise _invalid("checksum mismatch: publish a snapshot")
        return actual

    def _set(self, side: _Side, levels: Levels, undo: _Undo) -> Levels:
        changed: dict[Decimal, tuple[str, str]] = {}
        # The previous level at each price; also records which prices were given already.
        before: dict[Decimal, tuple[str, str] | None] = {}
        for price, quantity in levels:
            key = side.key(price)
            if key in before:
                raise _invalid(f"the price {price} appears twice on one side")
            previous = before[key] = side.get(key)
            if quantity.strip("0."):
                undo.append((side, key, previous))
                changed[key] = side.put(key, price, quantity)
            elif previous is not None:
                undo.append((side, key, previous))
                changed[key] = (side.drop(key)[0], REMOVED)
        while len(side) > self._max_levels:
            key = side.worst()
            undo.append((side, key, side.get(key)))
            price, _ = side.drop(key)
            if key in before and before[key] is None:
                # Added and removed within this update: clients need not see it.
                del changed[key]
            else:
                changed[key] = (price, REMOVED)
        return [changed[key] for key in sorted(changed)]

    def _check_not_crossed(self) -> None:
        bid, ask = self._bids.best(), self._asks.best()
        if bid is not None and ask is not None and bid >= ask:
            raise _invalid(f"the book would be crossed: bid {bid} is not below ask {ask}")


def checksum_of(bids: Levels, asks: Levels) -> int:
    """CRC32 of the best levels: bid, ask, next bid, next ask, as `price:quantity`."""
    parts: list[str] = []
    for i in range(CHECKSUM_LEVELS):
        if i < len(bids):
            parts += bids[i]
        if i < len(asks):
            parts += asks[i]
    return zlib.crc32(":".join(parts).encode())


def merge_changes(changes: Iterable[tuple[Levels, Levels]]) -> tuple[Levels, Levels]:
    """Merge consecutive changes into one with the same effect."""
    bids: dict[str, str] = {}
    asks: dict[str, str] = {}
    for change in changes:
        for side, levels in zip((bids, asks), change, strict=True):
            for price, quantity in levels:
                # Moved to the end: if one price has two spellings, the last one must apply last.
                side.pop(price, None)
                side[price] = quantity
    return (
        sorted(bids.items(), key=lambda level: Decimal(level[0]), reverse=True),
        sorted(asks.items(), key=lambda level: Decimal(level[0])),
    )


def _revert(undo: _Undo) -> None:
    for side, key, previous in reversed(undo):
        if side.get(key) is not None:
            side.drop(key)
        if previous is not None:
            side.put(key, *previous)


def _invalid(message: str) -> StateError:
    return StateError(ErrorCode.REQUEST_INVALID, message)
