"""Checks what the clients of a benchmark received, and sums it up."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

from client_sdk.client import Client
from client_sdk.contract import TradesMessage
from client_sdk.reading.gaps import Gap
from client_sdk.stats import Latencies, Latency

# The number of a trade and when it was due, by its id; None for somebody else's.
DueAt = Callable[[str], tuple[int, float] | None]
_MAX_OWN_SHARE = 0.9


class Receiver:
    """One client: checks the order of what it receives, and measures its latency."""

    def __init__(
        self, client: Client, topics: Sequence[str], due_at: DueAt, latencies: Latencies
    ) -> None:
        self._stream = client.market.stream(*topics)
        self._due_at = due_at
        self._last: dict[str, int] = {}
        self._seen: set[int] = set()
        # Of all clients together.
        self._latencies = latencies
        self.received = self.gaps = self.duplicates = self.reorders = 0

    async def ready(self) -> None:
        """Wait until the client is subscribed."""
        await self._stream.ready()

    async def run(self) -> None:
        """Receive until cancelled."""
        async for item in self._stream:
            if isinstance(item, Gap):
                self.gaps += 1
            elif isinstance(item, TradesMessage):
                now = time.perf_counter()
                for trade in item.data.trades:
                    due = self._due_at(str(trade.id))
                    if due is not None:
                        self._check(item.topic, *due, now)

    def _check(self, topic: str, number: int, due: float, now: float) -> None:
        if number in self._seen:
            self.duplicates += 1
            return
        self._seen.add(number)
        self.received += 1
        self._latencies.add((now - due) * 1000)
        if number < self._last.get(topic, -1):
            self.reorders += 1
        else:
            self._last[topic] = number


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of a benchmark."""

    clients: int
    published: int
    received: int
    missing: int
    gaps: int
    duplicates: int
    reorders: int
    latency: Latency
    late_ms: float
    cpu_share: float
    refused: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        receivers: Sequence[Receiver],
        published: int,
        refused: dict[str, int],
        latency: Latency,
        late_ms: float,
        cpu_share: float,
    ) -> Self:
        """Sum up what all clients received."""
        received = sum(each.received for each in receivers)
        return cls(
            clients=len(receivers),
            published=published,
            received=received,
            missing=published * len(receivers) - received,
            gaps=sum(each.gaps for each in receivers),
            duplicates=sum(each.duplicates for each in receivers),
            reorders=sum(each.reorders for each in receivers),
            latency=latency,
            late_ms=late_ms,
            cpu_share=cpu_share,
            refused=refused,
        )

    @property
    def holds(self) -> bool:
        """Whether every client received everything, once and in order."""
        faults = self.missing + self.gaps + self.duplicates + self.reorders
        return faults == 0 and self.published > 0 and not self.refused

    def body(self) -> dict[str, object]:
        """The result for programs."""
        latency = self.latency
        return {
            "ok": self.holds,
            "clients": self.clients,
            "published": self.published,
            "received": self.received,
            "missing": self.missing,
            "gaps": self.gaps,
            "duplicates": self.duplicates,
            "reorders": self.reorders,
            "refused": self.refused,
            "latency_ms": {
                "p50": round(latency.p50_ms, 2),
                "p90": round(latency.p90_ms, 2),
                "p99": round(latency.p99_ms, 2),
                "max": round(latency.max_ms, 2),
            },
            "publisher_late_ms": round(self.late_ms, 2),
            "cpu_share": round(self.cpu_share, 3),
        }

    def text(self) -> str:
        """The result for people."""
        latency = self.latency
        lines = [
            f"{self.published} messages published, {self.received} received by "
            f"{self.clients} clients",
            f"latency from the due time: p50 {latency.p50_ms:.1f} ms, p90 {latency.p90_ms:.1f} ms,"
            f" p99 {latency.p99_ms:.1f} ms, max {latency.max_ms:.1f} ms",
            f"publisher late by at most {self.late_ms:.1f} ms; this process used "
            f"{self.cpu_share:.0%} of a core",
        ]
        if self.cpu_share > _MAX_OWN_SHARE:
            lines.append("this process was the bottleneck: use fewer clients or a lower rate")
        lines += [f"{times} refused: {error}" for error, times in self.refused.items()]
        lines.append(
            f"proof: missing {self.missing}, gaps {self.gaps}, duplicates {self.duplicates}, "
            f"reorders {self.reorders}: {'ok' if self.holds else 'FAILED'}"
        )
        return "\n".join(lines)
