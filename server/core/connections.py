"""The registry: who is connected, found by connection, user, org and device."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """One joined namespace of one client."""

    connection_id: str
    user_id: str
    org: str
    namespace: str
    device_id: str
    ip: str
    connected_at: datetime
    expires_at: float
    session_id: str | None = None
    # Whatever a client says of itself: not for logs, and it need not be hashable.
    metadata: Mapping[str, object] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        for name in ("connection_id", "user_id", "org", "namespace", "device_id"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise RequestError(ErrorCode.REQUEST_INVALID, f"a connection needs a {name}")
        if self.connected_at.utcoffset() is None:
            raise RequestError(ErrorCode.REQUEST_INVALID, "connected_at needs a time zone")
        object.__setattr__(self, "connected_at", self.connected_at.astimezone(UTC))
        # A copy that nobody can change: what the registry knows is changed through it alone.
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))


class ConnectionManager:
    """Every connection of one server; an operation costs only what it hands out."""

    def __init__(self) -> None:
        self._records: dict[str, ConnectionRecord] = {}
        self._users: dict[tuple[str, str], dict[str, None]] = {}
        self._orgs: dict[str, dict[str, None]] = {}
        self._devices: dict[tuple[str, str], dict[str, int]] = {}
        self._device_count = 0

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, connection_id: object) -> bool:
        return connection_id in self._records

    def add(self, record: ConnectionRecord) -> ConnectionRecord:
        """Take a connection in; an id that is taken is refused and changes nothing."""
        if record.connection_id in self._records:
            raise RequestError(
                ErrorCode.REQUEST_INVALID, f"the connection id {record.connection_id} is taken"
            )
        user = (record.org, record.user_id)
        self._records[record.connection_id] = record
        self._users.setdefault(user, {})[record.connection_id] = None
        self._orgs.setdefault(record.org, {})[record.user_id] = None
        devices = self._devices.setdefault(user, {})
        if record.device_id not in devices:
            self._device_count += 1
        devices[record.device_id] = devices.get(record.device_id, 0) + 1
        return record

    def remove(self, connection_id: str) -> ConnectionRecord | None:
        """Let a connection go; one that is not there is nothing."""
        record = self._records.pop(connection_id, None)
        if record is None:
            return None
        user = (record.org, record.user_id)
        devices = self._devices[user]
        devices[record.device_id] -= 1
        if not devices[record.device_id]:
            del devices[record.device_id]
            self._device_count -= 1
        connections = self._users[user]
        del connections[connection_id]
        if not connections:
            del self._users[user]
            del self._devices[user]
            users = self._orgs[record.org]
            del users[record.user_id]
            if not users:
                del self._orgs[record.org]
        return record

    def renew(self, connection_id: str, expires_at: float) -> ConnectionRecord:
        """The connection goes on with a newer token."""
        record = replace(self._records[connection_id], expires_at=expires_at)
        self._records[connection_id] = record
        return record

    def get(self, connection_id: str) -> ConnectionRecord | None:
        """One connection."""
        return self._records.get(connection_id)

    def connections(self) -> tuple[ConnectionRecord, ...]:
        """All of them, as they are at this moment."""
        return tuple(self._records.values())

    def connections_of(self, org: str, user_id: str) -> tuple[ConnectionRecord, ...]:
        """Those of one user."""
        return tuple(self._records[each] for each in self._users.get((org, user_id), ()))

    def devices_of(self, org: str, user_id: str) -> tuple[str, ...]:
        """The devices that one user is connected with."""
        return tuple(self._devices.get((org, user_id), ()))

    def users(self, org: str) -> tuple[str, ...]:
        """The connected users of one org."""
        return tuple(self._orgs.get(org, ()))

    def orgs(self) -> tuple[str, ...]:
        """The orgs that have anybody connected."""
        return tuple(self._orgs)

    def stats(self) -> dict[str, int]:
        """How many there are of each."""
        return {
            "connections": len(self._records),
            "users": len(self._users),
            "orgs": len(self._orgs),
            "devices": self._device_count,
        }
