"""Limits the requests of an address and of a token's user."""

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from client_sdk.contract import ErrorCode
from server.access import Principal
from server.core.errors import LimitError
from server.core.limits.bucket_table import BucketTable
from server.core.limits.connections import address_key
from server.core.limits.events import items_cost
from server.core.limits.token_bucket import milliseconds
from server.ports import Clock

K = TypeVar("K", bound=Hashable)

_BURST_SECONDS = 2.0
# Requests that are handled, or answered to a client that reads slowly, at the same time.
_MAX_AT_ONCE = 1_000
_MAX_AT_ONCE_PER_IP = 100
_RETRY_MS = 1_000


class RequestLimits:
    """The request rates; 0 means no limit."""

    def __init__(self, clock: Clock, *, per_second: float, per_second_per_ip: float) -> None:
        self._clock = clock
        self._users: BucketTable[tuple[str, str]] = _table(per_second)
        self._addresses: BucketTable[str] = _table(per_second_per_ip)
        self._at_once: Counter[str] = Counter()
        # Requests that are being handled or answered.
        self.open_count = 0

    @contextmanager
    def open_request(self, ip: str) -> Iterator[None]:
        """Count a request until the context ends; raises `LimitError` if there are too many."""
        address, open_requests = address_key(ip), self._at_once
        if self.open_count >= _MAX_AT_ONCE:
            raise LimitError(
                ErrorCode.SERVER_OVERLOADED, "too many requests at once", retry_after_ms=_RETRY_MS
            )
        if open_requests[address] >= _MAX_AT_ONCE_PER_IP:
            raise LimitError(
                ErrorCode.LIMIT_RATE,
                "too many requests of this address at once: read the answers",
                retry_after_ms=_RETRY_MS,
            )
        open_requests[address] += 1
        self.open_count += 1
        try:
            yield
        finally:
            self.open_count -= 1
            open_requests[address] -= 1
            if not open_requests[address]:
                del open_requests[address]

    def check_address(self, ip: str) -> None:
        """Count a request before its token is verified; raises `LimitError`."""
        wait = self._addresses.take(address_key(ip), self._clock.monotonic())
        if wait:
            raise _too_many("this address", wait)

    def check_user(self, principal: Principal) -> None:
        """Count a request of a verified user; raises `LimitError`."""
        wait = self._users.take(principal.user, self._clock.monotonic())
        if wait:
            raise _too_many("this token's user", wait)

    def charge_items(self, principal: Principal, count: int) -> None:
        """Charge for further messages of a request; later requests may have to wait."""
        self._users.charge(principal.user, self._clock.monotonic(), items_cost(count))


def _table(rate: float) -> BucketTable[K]:
    return BucketTable(rate, max(1.0, rate * _BURST_SECONDS))


def _too_many(whose: str, wait_seconds: float) -> LimitError:
    return LimitError(
        ErrorCode.LIMIT_RATE,
        f"too many requests of {whose}: retry later",
        retry_after_ms=milliseconds(wait_seconds),
    )
