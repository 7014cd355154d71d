"""Tells which nodes have died: they gave no sign of life for the time of a lease."""

from collections.abc import Mapping
from dataclasses import dataclass

DEAD = b"-"


@dataclass(frozen=True, slots=True)
class _Sign:
    value: bytes
    since: float


class Leases:
    """No clock of another node counts, only what was seen here without a break.

    While Redis was away nobody could give a sign: the time before such a break is forgotten.
    """

    def __init__(self, *, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._signs: dict[bytes, _Sign] = {}
        self._looked = 0.0

    def look(self, nodes: Mapping[bytes, bytes], now: float) -> list[tuple[bytes, bytes]]:
        """The last signs of all nodes; those that are to be given up, with theirs."""
        broken = now - self._looked > self._lease_seconds / 2
        self._looked = now
        before = {} if broken else self._signs
        self._signs = {}
        for node, value in nodes.items():
            known = before.get(node)
            same = known is not None and known.value == value
            self._signs[node] = known if known is not None and same else _Sign(value, now)
        return [
            (node, sign.value)
            for node, sign in self._signs.items()
            if not sign.value.startswith(DEAD) and now - sign.since >= self._lease_seconds
        ]
