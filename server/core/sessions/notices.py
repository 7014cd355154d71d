"""Keeps critical notifications until their user acknowledges them, or they expire."""

from collections import OrderedDict
from dataclasses import dataclass, field

from server.core.limits.shares import UNLIMITED, Owner, Quota, ShareLimits, Shares

User = tuple[str, str]

# What a notice costs besides its data.
_NOTICE_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Notice:
    """One notification for one user, its data as JSON bytes."""

    org: str
    user_id: str
    id: str
    event: str
    ts_ms: int
    # Not for logs.
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _StoredNotice:
    notice: Notice
    expires_at: float


class Notices:
    """Unacknowledged notices, each kept for `keep_seconds`, bounded by user, by org and in total.

    At a limit the oldest notice of the user, or of the largest org, is dropped: one org never takes
    the place of another's.
    An acknowledged id is remembered for as long again: a sender that retries, because the reply was
    lost, does not notify the user twice.
    """

    def __init__(
        self,
        *,
        keep_seconds: float,
        max_per_user: int,
        max_total: int,
        org: Quota | None = None,
        total_bytes: int = UNLIMITED,
    ) -> None:
        self._keep_seconds = keep_seconds
        self._max_per_user = max_per_user
        # Oldest first everywhere. An OrderedDict, because removing the first key is slow in a dict.
        self._users: dict[User, OrderedDict[str, _StoredNotice]] = {}
        self._order: OrderedDict[tuple[User, str], None] = OrderedDict()
        self._acknowledged: OrderedDict[tuple[User, str], float] = OrderedDict()
        # Held by the orgs; the users of one org share its limit, first come, first dropped.
        self._shares: Shares[tuple[User, str]] = Shares(
            ShareLimits(Quota(max_total, total_bytes), org or Quota(), Quota())
        )
        self._acknowledged_shares: Shares[tuple[User, str]] = Shares(
            ShareLimits(Quota(max_total), Quota((org or Quota()).count), Quota())
        )
        # Evicted or expired since the last sweep.
        self._dropped: list[tuple[User, str]] = []
        # Expired since the last `pop_expired`.
        self._expired: list[Notice] = []
        # Unacknowledged notices that were evicted to make room, and that expired.
        self.dropped_count = 0
        self.expired_count = 0

    def __len__(self) -> int:
        return len(self._order)

    def put(self, notice: Notice, now: float, *, expires_at: float | None = None) -> bool:
        """Store a notice; False if its id is known. May evict older ones.

        Pass `expires_at` for a notice that another store has kept for some time already.
        """
        if self.is_known(notice, now):
            return False
        user = (notice.org, notice.user_id)
        key = (user, notice.id)
        mine = self._users.setdefault(user, OrderedDict())
        mine[notice.id] = _StoredNotice(
            notice, now + self._keep_seconds if expires_at is None else expires_at
        )
        self._order[key] = None
        holder = Owner(notice.org, "")
        self._shares.put(holder, key, len(notice.data) + _NOTICE_BYTES)
        if len(mine) > self._max_per_user:
            self._evict(user, next(iter(mine)))
        while (surplus := self._shares.surplus(holder)) is not None:
            self._evict(*next(iter(surplus.names)))
        return True

    def is_known(self, notice: Notice, now: float) -> bool:
        """Whether `put` would refuse a notice, because its id is known."""
        self.expire(now)
        key = ((notice.org, notice.user_id), notice.id)
        return key in self._order or key in self._acknowledged

    def all(self) -> tuple[Notice, ...]:
        """Every unacknowledged notice."""
        return tuple(self._users[user][notice_id].notice for user, notice_id in self._order)

    def pending(self, org: str, user_id: str, now: float) -> tuple[Notice, ...]:
        """The unacknowledged notices to send to a device of this user, oldest first."""
        stored = self._users.get((org, user_id), OrderedDict())
        return tuple(each.notice for each in stored.values() if each.expires_at > now)

    def acknowledge(self, org: str, user_id: str, notice_id: str, now: float) -> bool:
        """Remove a notice for all devices of the user; False if it is not pending."""
        self.expire(now)
        user = (org, user_id)
        if notice_id not in self._users.get(user, {}):
            return False
        self._remove(user, notice_id)
        self._acknowledged[user, notice_id] = now + self._keep_seconds
        holder = Owner(org, "")
        self._acknowledged_shares.put(holder, (user, notice_id), 1)
        surplus = self._acknowledged_shares.surplus(holder)
        if surplus is not None:
            self._forget_acknowledged(next(iter(surplus.names)))
        return True

    def sweep(self, now: float) -> list[tuple[User, str]]:
        """Remove what has expired; returns the notices dropped, for whatever reason, since then."""
        self.expire(now)
        dropped, self._dropped = self._dropped, []
        return dropped

    def pop_expired(self) -> list[Notice]:
        """The notices that have expired since the last call."""
        expired, self._expired = self._expired, []
        return expired

    def expire(self, now: float) -> None:
        """Remove the notices, and the remembered ids, whose time is over."""
        while self._acknowledged:
            key, until = next(iter(self._acknowledged.items()))
            if until > now:
                break
            self._forget_acknowledged(key)
        while self._order:
            user, notice_id = next(iter(self._order))
            stored = self._users[user][notice_id]
            if stored.expires_at > now:
                break
            self._expired.append(stored.notice)
            self._remove(user, notice_id)
            self._dropped.append((user, notice_id))
            self.expired_count += 1

    def _forget_acknowledged(self, key: tuple[User, str]) -> None:
        del self._acknowledged[key]
        self._acknowledged_shares.remove(Owner(key[0][0], ""), key)

    def _evict(self, user: User, notice_id: str) -> None:
        self._remove(user, notice_id)
        self._dropped.append((user, notice_id))
        self.dropped_count += 1

    def _remove(self, user: User, notice_id: str) -> None:
        del self._order[user, notice_id]
        self._shares.remove(Owner(user[0], ""), (user, notice_id))
        mine = self._users[user]
        del mine[notice_id]
        if not mine:
            del self._users[user]
