"""Limits open connections and connection attempts; a limit of 0 means none."""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError, RequestError
from server.core.limits.bucket_table import BucketTable
from server.core.limits.keys import (
    LimitKey,
    connect_burst,
    connect_rate_exceeded,
    too_many_connections,
)
from server.core.limits.token_bucket import TokenBucket, milliseconds
from server.core.users import user_key

K = TypeVar("K")


# A client's address is looked at several times while it connects.
@lru_cache(maxsize=4096)
def address_key(ip: str) -> str:
    """The key an address is counted under: the IPv4 address, or the /64 of an IPv6 customer."""
    try:
        parsed = ip_address(ip.partition("%")[0])
    except ValueError:
        return ip
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)


class ConnectionLimits:
    """Counts open connections in total, by address and by user.

    Calls `on_release` once for each key of a lease that other nodes count too, when its user or
    the connection has gone.
    """

    def __init__(
        self,
        *,
        total: int,
        per_ip: int,
        per_user: int,
        on_release: Callable[[LimitKey], None] | None = None,
    ) -> None:
        self._total = total
        self._per_ip = per_ip
        self._per_user = per_user
        self.on_release = on_release or _ignore_release
        self.open_count = 0
        self._by_address: dict[str, int] = {}
        self._by_user: dict[tuple[str, str], int] = {}

    def open(self, ip: str) -> "ConnectionLease":
        """Count a connection until its lease is closed; raises `LimitError` at a limit."""
        address = address_key(ip)
        if 0 < self._total <= self.open_count:
            raise LimitError(ErrorCode.LIMIT_CONNECTIONS, "the server is full")
        if 0 < self._per_ip <= self._by_address.get(address, 0):
            raise too_many_connections(address, self._per_ip)
        self.open_count += 1
        self._by_address[address] = self._by_address.get(address, 0) + 1
        return ConnectionLease(self, address)

    def tracked_count(self) -> int:
        """The number of addresses and users in memory; only those with open connections."""
        return len(self._by_address) + len(self._by_user)

    def _count_user(self, user: tuple[str, str]) -> None:
        if 0 < self._per_user <= self._by_user.get(user, 0):
            raise too_many_connections(user, self._per_user)
        self._by_user[user] = self._by_user.get(user, 0) + 1

    def _forget_user(self, user: tuple[str, str]) -> None:
        _decrement(self._by_user, user)

    def _release_address(self, address: str) -> None:
        self.open_count -= 1
        _decrement(self._by_address, address)


class ConnectionLease:
    """One connection's share of the limits; closing it releases everything counted for it."""

    __slots__ = ("_closed", "_limits", "_shared", "_users", "address")

    def __init__(self, limits: ConnectionLimits, address: str) -> None:
        self._limits = limits
        self.address = address
        # One connection carries two namespaces: the same user in both counts once. Nearly always
        # there is one user, and a tuple takes half of what a dict takes.
        self._users: tuple[tuple[tuple[str, str], int], ...] = ()
        # The keys that other nodes count for this connection too.
        self._shared: tuple[LimitKey, ...] = ()
        self._closed = False

    def identify(self, org: str, user_id: str) -> None:
        """Count a namespace of this connection for a user.

        Raises `LimitError` if the user has too many connections, `RequestError` if this one is
        closed.
        """
        if self._closed:
            # A token can be verified after its client has gone; nothing would release this count.
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
        user = user_key(org, user_id)
        count = self._count_of(user)
        if not count:
            self._limits._count_user(user)
        self._set_count(user, count + 1)

    def _count_of(self, user: tuple[str, str]) -> int:
        return next((count for each, count in self._users if each == user), 0)

    def _set_count(self, user: tuple[str, str], count: int) -> None:
        others = tuple(each for each in self._users if each[0] != user)
        self._users = (*others, (user, count)) if count else others

    def is_shared(self, key: LimitKey) -> bool:
        """True if other nodes count this key for the connection too."""
        return key in self._shared

    def add_shared(self, key: LimitKey) -> None:
        """Record that other nodes count this key too; released at once if the lease is closed."""
        if self._closed:
            # The other nodes can answer after the connection has ended.
            self._limits.on_release(key)
        else:
            self._shared = (*self._shared, key)

    def forget(self, org: str, user_id: str) -> None:
        """Stop counting one namespace of this user; a no-op for an unknown user."""
        user = (org, user_id)
        count = self._count_of(user)
        if count:
            self._set_count(user, count - 1)
            if count == 1:
                self._limits._forget_user(user)
                if user in self._shared:
                    self._shared = tuple(key for key in self._shared if key != user)
                    self._limits.on_release(user)

    def close(self) -> None:
        """Release everything; a no-op the second time."""
        if self._closed:
            return
        self._closed = True
        for user, _ in self._users:
            self._limits._forget_user(user)
        self._users = ()
        shared, self._shared = self._shared, ()
        for key in shared:
            self._limits.on_release(key)
        self._limits._release_address(self.address)


def _ignore_release(_: LimitKey) -> None:
    """The default `on_release`: no other node counts."""


def _decrement(counters: dict[K, int], key: K) -> None:
    counters[key] -= 1
    if not counters[key]:
        del counters[key]


class ConnectRate:
    """Limits connection attempts, by address and in total; `max_tracked` bounds the addresses."""

    def __init__(
        self, *, per_second: float, per_second_per_ip: float, max_tracked: int = 65536
    ) -> None:
        self._per_second = per_second
        self._total_bucket: TokenBucket | None = None
        self._buckets: BucketTable[str] = BucketTable(
            per_second_per_ip, connect_burst(per_second_per_ip), max_tracked=max_tracked
        )

    def check(self, ip: str, now: float) -> None:
        """Count one attempt; raises `LimitError` if there were too many."""
        wait = self._buckets.take(address_key(ip), now)
        if wait:
            raise connect_rate_exceeded(milliseconds(wait))
        if self._per_second > 0:
            if self._total_bucket is None:
                burst = connect_burst(self._per_second)
                self._total_bucket = TokenBucket(self._per_second, burst, now)
            wait = self._total_bucket.take(now)
            if wait:
                raise LimitError(
                    ErrorCode.LIMIT_RATE,
                    "too many connection attempts on this server: retry later",
                    retry_after_ms=milliseconds(wait),
                )

    def tracked_count(self) -> int:
        """The number of addresses in memory."""
        return len(self._buckets)
