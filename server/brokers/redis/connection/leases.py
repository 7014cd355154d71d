"""Finds nodes whose heartbeat did not change for the duration of a lease."""

from collections.abc import Mapping
from dataclasses import dataclass

DEAD_PREFIX = b"-"


@dataclass(frozen=True, slots=True)
class _Heartbeat:
    value: bytes
    since: float


class Leases:
    """Measures leases by this node's clock only; clocks of other nodes may differ.

    While Redis is down no node can send a heartbeat, so a break in observation restarts all leases.
    """

    def __init__(self, *, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._heartbeats: dict[bytes, _Heartbeat] = {}
        self._observed_at = 0.0

    def expired(self, nodes: Mapping[bytes, bytes], now: float) -> list[tuple[bytes, bytes]]:
        """Observe all last heartbeats; returns the nodes with an expired lease, and theirs."""
        interrupted = now - self._observed_at > self._lease_seconds / 2
        self._observed_at = now
        previous = {} if interrupted else self._heartbeats
        self._heartbeats = {}
        for node, value in nodes.items():
            known = previous.get(node)
            same = known is not None and known.value == value
            self._heartbeats[node] = known if known is not None and same else _Heartbeat(value, now)
        return [
            (node, beat.value)
            for node, beat in self._heartbeats.items()
            if not beat.value.startswith(DEAD_PREFIX) and now - beat.since >= self._lease_seconds
        ]
