"""When users who have gone were last connected."""

from collections import OrderedDict

from server.core.occupancy.config import OccupancyConfig
from server.core.occupancy.wills import User


class LastSeen:
    """The times at which users were last connected, on one node; the earliest go first."""

    def __init__(self, config: OccupancyConfig) -> None:
        self._keep_ms = int(config.seen_seconds * 1000)
        self._max_per_org = config.seen_per_org
        self._max_users = config.seen_total
        self._count = 0
        self._by_org: dict[str, OrderedDict[str, int]] = {}

    def record(self, user: User, at_ms: int) -> list[User]:
        """Record that a user was connected until this time; returns the users to forget."""
        if self._keep_ms <= 0:
            return []
        org, user_id = user
        users = self._by_org.setdefault(org, OrderedDict())
        self._count += user_id not in users
        users[user_id] = at_ms
        users.move_to_end(user_id)
        forgotten = []
        while len(users) > self._max_per_org or self._is_over(next(iter(users.values())), at_ms):
            forgotten.append(self._drop_earliest(org))
        while self._count > self._max_users:
            largest = max(self._by_org, key=lambda each: len(self._by_org[each]))
            forgotten.append(self._drop_earliest(largest))
        return forgotten

    def forget(self, user: User) -> bool:
        """Forget a user that is connected again; returns False if the user was unknown."""
        org, user_id = user
        users = self._by_org.get(org)
        if users is None or user_id not in users:
            return False
        del users[user_id]
        self._count -= 1
        if not users:
            del self._by_org[org]
        return True

    def get(self, user: User, now_ms: int) -> int | None:
        """When a user was last connected, in ms; None if that is unknown or too long ago."""
        users = self._by_org.get(user[0])
        at_ms = None if users is None else users.get(user[1])
        return None if at_ms is None or self._is_over(at_ms, now_ms) else at_ms

    def _is_over(self, at_ms: int, now_ms: int) -> bool:
        return at_ms + self._keep_ms <= now_ms

    def _drop_earliest(self, org: str) -> User:
        users = self._by_org[org]
        user_id, _ = users.popitem(last=False)
        self._count -= 1
        if not users:
            del self._by_org[org]
        return org, user_id
