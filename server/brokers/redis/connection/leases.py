"""Tells which nodes have died: they gave no sign of life for the time of a lease."""

from collections.abc import Mapping
from dataclasses import dataclass

DEAD_PREFIX = b"-"


@dataclass(frozen=True, slots=True)
class _Heartbeat:
    value: bytes
    since: float


class Leases:
    """No clock of another node counts, only what was seen here without a break.

    While Redis was away nobody could give a sign: the time before such a break is forgotten.
    """

    def __init__(self, *, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._heartbeats: dict[bytes, _Heartbeat] = {}
        self._observed_at = 0.0

    def expired(self, nodes: Mapping[bytes, bytes], now: float) -> list[tuple[bytes, bytes]]:
        """The last signs of all nodes; those that are to be given up, with theirs."""
        broken = now - self._observed_at > self._lease_seconds / 2
        self._observed_at = now
        before = {} if broken else self._heartbeats
        self._heartbeats = {}
        for node, value in nodes.items():
            known = before.get(node)
            same = known is not None and known.value == value
            self._heartbeats[node] = known if known is not None and same else _Heartbeat(value, now)
        return [
            (node, sign.value)
            for node, sign in self._heartbeats.items()
            if not sign.value.startswith(DEAD_PREFIX) and now - sign.since >= self._lease_seconds
        ]
