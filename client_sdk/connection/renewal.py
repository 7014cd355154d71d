"""When to ask for a newer token: once the server wants one, and again until the old one ends."""

from client_sdk.connection.backoff import Backoff, BackoffConfig

# The server says it half a minute ahead: several attempts, and not in step with other clients.
_RETRY_BACKOFF = BackoffConfig(least_seconds=0.2, first_seconds=1.0, most_seconds=8.0)


class TokenRenewal:
    """No I/O: it is told what becomes of each attempt on one connection, and when tokens end."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._retry_backoff = backoff.with_config(_RETRY_BACKOFF)
        # When the token of each namespace ends, by the loop's clock.
        self._expires_at: dict[str, float] = {}
        # When to try next; None where nothing is to be renewed, or not in time.
        self.next_attempt_at: float | None = None

    def schedule(self, namespace: str, expires_at: float, now: float) -> None:
        """The server says when a token ends: the first attempt is at once, whenever that is."""
        self._expires_at[namespace] = expires_at
        self._retry_backoff = self._backoff.with_config(_RETRY_BACKOFF)
        self.next_attempt_at = now

    def is_due(self, now: float) -> bool:
        """Whether to try now."""
        return self.next_attempt_at is not None and self.next_attempt_at <= now

    def pending(self) -> tuple[str, ...]:
        """The namespaces that lack a newer token."""
        return tuple(sorted(self._expires_at))

    def set_renewed(self, namespace: str) -> None:
        """One has it."""
        self._expires_at.pop(namespace, None)
        if not self._expires_at:
            self.next_attempt_at = None

    def cancel(self) -> None:
        """There are no newer ones to be had."""
        self._expires_at.clear()
        self.next_attempt_at = None

    def schedule_retry(self, now: float) -> None:
        """Whatever is lacking still is tried again, as long as its token lasts."""
        next_at = now + self._retry_backoff.next_seconds()
        self._expires_at = {name: end for name, end in self._expires_at.items() if end > next_at}
        self.next_attempt_at = next_at if self._expires_at else None
