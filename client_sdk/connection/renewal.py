"""When to ask for a newer token: once the server wants one, and again until the old one ends."""

from client_sdk.connection.backoff import Backoff, BackoffConfig

# The server says it half a minute ahead: several attempts, and not in step with other clients.
_PAUSES = BackoffConfig(least_seconds=0.2, first_seconds=1.0, most_seconds=8.0)


class Renewal:
    """No I/O: it is told what becomes of each attempt on one connection, and when tokens end."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._pauses = backoff.another(_PAUSES)
        # When the token of each namespace ends, by the loop's clock.
        self._ends: dict[str, float] = {}
        # When to try next; None where nothing is to be renewed, or not in time.
        self.next_at: float | None = None

    def expect(self, namespace: str, ends_at: float, now: float) -> None:
        """The server says when a token ends: the first attempt is at once, whenever that is."""
        self._ends[namespace] = ends_at
        self._pauses = self._backoff.another(_PAUSES)
        self.next_at = now

    def is_due(self, now: float) -> bool:
        """Whether to try now."""
        return self.next_at is not None and self.next_at <= now

    def wanted(self) -> tuple[str, ...]:
        """The namespaces that lack a newer token."""
        return tuple(sorted(self._ends))

    def renewed(self, namespace: str) -> None:
        """One has it."""
        self._ends.pop(namespace, None)
        if not self._ends:
            self.next_at = None

    def give_up(self) -> None:
        """There are no newer ones to be had."""
        self._ends.clear()
        self.next_at = None

    def failed(self, now: float) -> None:
        """Whatever is lacking still is tried again, as long as its token lasts."""
        next_at = now + self._pauses.next_seconds()
        self._ends = {name: end for name, end in self._ends.items() if end > next_at}
        self.next_at = next_at if self._ends else None
