"""Simulates one side of an order book, in whole ticks and lots."""

from collections.abc import Callable

DEPTH = 25
_MAX_LOTS = 5000


class Ladder:
    """Always `DEPTH` levels, best first, and the changes since the last `pop_changes`."""

    def __init__(
        self, best: int, *, direction: int, max_gap: int, draw: Callable[[], float]
    ) -> None:
        # The sign of worse prices: +1 for asks, -1 for bids.
        self._direction = direction
        self._max_gap = max_gap
        self._draw = draw
        self._ticks = [best]
        self._lots = [self._random_lots()]
        self._changes: dict[int, int] = {}
        while len(self._ticks) < DEPTH:
            self._append_level()
        self._changes.clear()

    @property
    def best(self) -> int:
        """The best price, in ticks."""
        return self._ticks[0]

    @property
    def best_lots(self) -> int:
        """The lots at the best price."""
        return self._lots[0]

    def levels(self) -> list[tuple[int, int]]:
        """All ticks and their lots, best first."""
        return list(zip(self._ticks, self._lots, strict=True))

    def take(self, lots: int) -> None:
        """Trade lots at the best price; at most `best_lots`."""
        if lots == self._lots[0]:
            self.drop(1)
        else:
            self._set(0, self._lots[0] - lots)

    def drop(self, count: int) -> None:
        """Remove the best levels, and append as many at the far end."""
        for _ in range(count):
            self._lots.pop(0)
            self._changes[self._ticks.pop(0)] = 0
            self._append_level()

    def approach(self, limit: int) -> None:
        """Add better levels until the best is within the maximum gap of `limit`, short of it."""
        while (room := abs(limit - self._ticks[0]) - 1) > 0:
            gap = 1 + int(self._draw() * min(room, self._max_gap))
            self._ticks.insert(0, self._ticks[0] - self._direction * gap)
            self._lots.insert(0, 0)
            self._set(0, self._random_lots())
            self._lots.pop()
            self._changes[self._ticks.pop()] = 0
            if room - gap <= self._max_gap:
                return

    def change_random_level(self) -> None:
        """Change the lots of one random level."""
        self._set(int(self._draw() * DEPTH), self._random_lots())

    def pop_changes(self) -> list[tuple[int, int]]:
        """Remove and return the changes, best first; 0 lots removes a level."""
        changes = sorted(self._changes.items(), reverse=self._direction < 0)
        self._changes.clear()
        return changes

    def _append_level(self) -> None:
        gap = 1 + int(self._draw() * self._max_gap)
        self._ticks.append(self._ticks[-1] + self._direction * gap)
        self._lots.append(0)
        self._set(-1, self._random_lots())

    def _set(self, index: int, lots: int) -> None:
        self._lots[index] = lots
        self._changes[self._ticks[index]] = lots

    def _random_lots(self) -> int:
        return 1 + int(self._draw() * _MAX_LOTS)
