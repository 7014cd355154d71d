"""Shares of a bounded resource: what each publisher and each org holds, in number and bytes."""

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError

K = TypeVar("K", bound=Hashable)


class Owner(NamedTuple):
    """The publisher that holds an item, and its org."""

    org: str
    user_id: str


# The feeds and the code of this process: only the total binds them.
SERVER = Owner("", "")


# The value of a limit that does not apply.
UNLIMITED = 2**53


def is_about(size_bytes: int, counted_bytes: int) -> bool:
    """Whether a size is within a sixteenth of the one that is counted, which then may stay.

    A log changes its size with every message: counting each change would double the cost of one.
    """
    return -(counted_bytes >> 4) <= size_bytes - counted_bytes <= counted_bytes >> 4


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit in number and in bytes."""

    count: int = UNLIMITED
    size_bytes: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class ShareLimits:
    """The limits of all together, of each org, and of each publisher."""

    total: Quota
    org: Quota
    publisher: Quota


NO_SHARES = ShareLimits(Quota(), Quota(), Quota())


class Level(StrEnum):
    """Whose limit is exceeded."""

    PUBLISHER = "a publisher"
    ORG = "an org"
    SERVER = "the server"


@dataclass(frozen=True, slots=True)
class Surplus(Generic[K]):
    """A limit that is exceeded, and the items of its largest holder, oldest first."""

    level: Level
    limit: int
    in_bytes: bool
    owner: Owner
    names: Iterable[K]

    def error(self, resource: str) -> LimitError:
        """The error for who may not add to the resource, such as "topics"."""
        return share_error(
            self.level, f"bytes of {resource}" if self.in_bytes else resource, self.limit
        )


def share_error(level: Level, resource: str, limit: int) -> LimitError:
    """The error for who may not add to a resource."""
    code = ErrorCode.SERVER_OVERLOADED if level is Level.SERVER else ErrorCode.LIMIT_SHARE
    return LimitError(
        code, f"{level} may keep at most {limit} {resource}", details={"limit": limit}
    )


class _LargestFirst(Generic[K]):
    """Finds a key with about the largest size, within a factor of two, in constant time."""

    def __init__(self) -> None:
        self._buckets: dict[int, OrderedDict[K, None]] = {}
        self._bucket_of: dict[K, int] = {}

    def set(self, key: K, size: int) -> None:
        """Set the size of a key; 0 removes it."""
        number, known = size.bit_length(), self._bucket_of.get(key, 0)
        if number == known:
            return
        if known:
            bucket = self._buckets[known]
            del bucket[key]
            if not bucket:
                del self._buckets[known]
        if number:
            self._buckets.setdefault(number, OrderedDict())[key] = None
            self._bucket_of[key] = number
        else:
            del self._bucket_of[key]

    def largest(self) -> K:
        """A key of the largest bucket; raises `ValueError` if there is none."""
        return next(iter(self._buckets[max(self._buckets)]))


class _Largest:
    """Finds who has the most, in number or in bytes."""

    __slots__ = ("by_bytes", "by_count")

    def __init__(self) -> None:
        self.by_count: _LargestFirst[str] = _LargestFirst()
        self.by_bytes: _LargestFirst[str] = _LargestFirst()

    def find(self, *, in_bytes: bool) -> str:
        return (self.by_bytes if in_bytes else self.by_count).largest()


@dataclass(slots=True, eq=False)
class _Holder(Generic[K]):
    owner: Owner
    # The item unchanged for longest comes first.
    items: OrderedDict[K, int] = field(default_factory=OrderedDict)
    size_bytes: int = 0


@dataclass(slots=True, eq=False)
class _Org(Generic[K]):
    holders: dict[str, _Holder[K]] = field(default_factory=dict)
    largest: _Largest = field(default_factory=_Largest)
    count: int = 0
    size_bytes: int = 0

    def largest_holder(self, *, in_bytes: bool) -> _Holder[K]:
        return self.holders[self.largest.find(in_bytes=in_bytes)]


class Shares(Generic[K]):
    """The items of all publishers, and who must give way if a limit is exceeded.

    `put` never refuses: you must ask `surplus` afterwards, and remove items until it returns None.
    Sizes must be positive.
    """

    def __init__(self, limits: ShareLimits) -> None:
        self._limits = limits
        self._orgs: dict[str, _Org[K]] = {}
        self._largest = _Largest()
        self.count = 0
        self.size_bytes = 0

    def put(self, owner: Owner, name: K, size_bytes: int) -> bool:
        """Add an item or change its size, as its owner's newest; returns if it has grown."""
        org = self._orgs.get(owner.org)
        if org is None:
            org = self._orgs[owner.org] = _Org()
        holder = org.holders.get(owner.user_id)
        if holder is None:
            holder = org.holders[owner.user_id] = _Holder(owner)
        previous = holder.items.get(name)
        holder.items[name] = size_bytes
        if previous is None:
            self._change(org, holder, 1, size_bytes)
            return True
        holder.items.move_to_end(name)
        if size_bytes != previous:
            self._change(org, holder, 0, size_bytes - previous)
        return size_bytes > previous

    def touch(self, owner: Owner, name: K) -> None:
        """Make an item its owner's newest; raises KeyError if this owner does not hold it."""
        self._orgs[owner.org].holders[owner.user_id].items.move_to_end(name)

    def remove(self, owner: Owner, name: K) -> None:
        """Remove an item; raises KeyError if this owner does not hold it."""
        org = self._orgs[owner.org]
        holder = org.holders[owner.user_id]
        self._change(org, holder, -1, -holder.items.pop(name))
        if not holder.items:
            del org.holders[owner.user_id]
            if not org.holders:
                del self._orgs[owner.org]

    def surplus(self, owner: Owner) -> Surplus[K] | None:
        """What must go before this owner may keep what it has put; None if all fits."""
        org = self._orgs.get(owner.org)
        if org is None:
            return None
        limits = self._limits
        if owner != SERVER:
            holder = org.holders.get(owner.user_id)
            if holder is not None and (
                _is_over(len(holder.items), holder.size_bytes, limits.publisher)
            ):
                in_bytes = len(holder.items) <= limits.publisher.count
                return _surplus(Level.PUBLISHER, limits.publisher, holder, in_bytes=in_bytes)
            if _is_over(org.count, org.size_bytes, limits.org):
                in_bytes = org.count <= limits.org.count
                largest = org.largest_holder(in_bytes=in_bytes)
                return _surplus(Level.ORG, limits.org, largest, in_bytes=in_bytes)
        if _is_over(self.count, self.size_bytes, limits.total):
            in_bytes = self.count <= limits.total.count
            largest_org = self._orgs[self._largest.find(in_bytes=in_bytes)]
            largest = largest_org.largest_holder(in_bytes=in_bytes)
            return _surplus(Level.SERVER, limits.total, largest, in_bytes=in_bytes)
        return None

    def _change(self, org: _Org[K], holder: _Holder[K], count: int, size_bytes: int) -> None:
        if count:
            # The caller has added or removed the item already.
            org.largest.by_count.set(holder.owner.user_id, len(holder.items))
            self._largest.by_count.set(holder.owner.org, org.count + count)
        of_holder, of_org = holder.size_bytes, org.size_bytes
        holder.size_bytes += size_bytes
        org.count += count
        org.size_bytes += size_bytes
        self.count += count
        self.size_bytes += size_bytes
        # Checked here: a call each would be a third of the cost of a publish's shares.
        if holder.size_bytes.bit_length() != of_holder.bit_length():
            org.largest.by_bytes.set(holder.owner.user_id, holder.size_bytes)
        if org.size_bytes.bit_length() != of_org.bit_length():
            self._largest.by_bytes.set(holder.owner.org, org.size_bytes)


def _is_over(count: int, size_bytes: int, quota: Quota) -> bool:
    return count > quota.count or size_bytes > quota.size_bytes


def _surplus(level: Level, quota: Quota, holder: _Holder[K], *, in_bytes: bool) -> Surplus[K]:
    limit = quota.size_bytes if in_bytes else quota.count
    return Surplus(level, limit, in_bytes, holder.owner, holder.items)
