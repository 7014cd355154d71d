"""Derives the best levels of a book, as they are or grouped by a step of the price."""

from bisect import bisect_left, insort
from decimal import Context, Decimal

from server.core.market.book import REMOVED, BookChange, Levels, OrderBook, checksum_of
from server.core.market.views import DepthView

# A price or quantity has at most 40 digits: nothing is ever rounded.
EXACT = Context(prec=200)


def shortest_text(number: Decimal) -> str:
    """The one spelling of a computed number: without an exponent and needless zeros."""
    return format(EXACT.normalize(number), "f")


class _GroupedSide:
    """One side of a book, its quantities summed by group, the best group first."""

    def __init__(self, step: Decimal, *, is_bids: bool) -> None:
        self._step = step
        self._is_bids = is_bids
        self._clear()

    def _clear(self) -> None:
        # By price: its group and its quantity.
        self._levels: dict[Decimal, tuple[Decimal, Decimal]] = {}
        # By group, as a sort key: the sum, and how many levels it has.
        self._groups: dict[Decimal, tuple[Decimal, int]] = {}
        self._keys: list[Decimal] = []

    def replace(self, levels: Levels) -> None:
        self._clear()
        self.update(levels)

    def update(self, levels: Levels) -> None:
        """Set the quantities of these levels; 0 removes one."""
        for price, quantity in levels:
            number = Decimal(price)
            previous = self._levels.pop(number, None)
            if previous is not None:
                self._add(previous[0], previous[1].copy_negate(), -1)
            if quantity.strip("0."):
                level = (self._group(number), Decimal(quantity))
                self._levels[number] = level
                self._add(*level, +1)

    def top(self, count: int) -> list[tuple[str, str]]:
        return [
            (shortest_text(self._price(key)), shortest_text(self._groups[key][0]))
            for key in self._keys[:count]
        ]

    def _price(self, key: Decimal) -> Decimal:
        # Unary minus would round to the context's precision.
        return key.copy_negate() if self._is_bids else key

    def _group(self, price: Decimal) -> Decimal:
        """The sort key of a price's group: bids are rounded down, asks up."""
        rest = EXACT.remainder(price, self._step)
        group = EXACT.subtract(price, rest)
        if self._is_bids:
            return (EXACT.subtract(group, self._step) if rest < 0 else group).copy_negate()
        return EXACT.add(group, self._step) if rest > 0 else group

    def _add(self, key: Decimal, quantity: Decimal, count: int) -> None:
        previous = self._groups.get(key)
        if previous is None:
            insort(self._keys, key)
            self._groups[key] = (quantity, count)
        elif previous[1] + count == 0:
            del self._groups[key]
            del self._keys[bisect_left(self._keys, key)]
        else:
            self._groups[key] = (EXACT.add(previous[0], quantity), previous[1] + count)


class Depth:
    """The levels of one view, as of the last change of its book."""

    def __init__(self, view: DepthView) -> None:
        self._view = view
        self._grouped: tuple[_GroupedSide, _GroupedSide] | None = None
        if view.step is not None:
            self._grouped = (
                _GroupedSide(view.step, is_bids=True),
                _GroupedSide(view.step, is_bids=False),
            )
        self._bids: list[tuple[str, str]] = []
        self._asks: list[tuple[str, str]] = []

    def replace(self, book: OrderBook) -> bool:
        """Take over a whole book; returns if the levels of the view have changed."""
        if self._grouped is not None:
            self._grouped[0].replace(book.bids)
            self._grouped[1].replace(book.asks)
        before = (self._bids, self._asks)
        self._bids, self._asks = self._top(book)
        return before != (self._bids, self._asks)

    def update(self, book: OrderBook, bids: Levels, asks: Levels) -> BookChange | None:
        """Follow an update of the book; None if the levels of the view have not changed."""
        if self._grouped is not None:
            self._grouped[0].update(bids)
            self._grouped[1].update(asks)
        before_bids, before_asks = self._bids, self._asks
        self._bids, self._asks = self._top(book)
        changed_bids = _difference(before_bids, self._bids)
        changed_asks = _difference(before_asks, self._asks)
        if not changed_bids and not changed_asks:
            return None
        return BookChange(changed_bids, changed_asks, self._checksum())

    def snapshot(self) -> BookChange:
        """All levels of the view."""
        return BookChange(self._bids, self._asks, self._checksum())

    def unchanged(self) -> BookChange:
        """A change without levels."""
        return BookChange((), (), self._checksum())

    def _checksum(self) -> int:
        return checksum_of(self._bids, self._asks)

    def _top(self, book: OrderBook) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        depth = self._view.depth
        if self._grouped is None:
            return book.top(depth)
        return self._grouped[0].top(depth), self._grouped[1].top(depth)


def _difference(before: list[tuple[str, str]], now: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if before == now:
        return []
    known, prices = set(before), {price for price, _ in now}
    # The removed ones first: a price may come back in another spelling.
    removed = [(price, REMOVED) for price, _ in before if price not in prices]
    return removed + [level for level in now if level not in known]
