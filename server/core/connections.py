"""The registry of connections, indexed by connection, user, org and device."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError
from server.core.users import User, user_key

# Shared, so that a record without metadata costs nothing.
_NO_METADATA: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """One client in one namespace."""

    connection_id: str
    user_id: str
    org: str
    namespace: str
    device_id: str
    ip: str
    connected_at: datetime
    expires_at: float
    session_id: str | None = None
    # Of its token, by which it can be revoked.
    issued_at: float = 0.0
    token_id: str | None = None
    # Chosen by the client: not for logs, and not necessarily hashable.
    metadata: Mapping[str, object] = field(
        default_factory=lambda: _NO_METADATA, repr=False, hash=False
    )

    def __post_init__(self) -> None:
        for name in ("connection_id", "user_id", "org", "namespace", "device_id"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise RequestError(
                    ErrorCode.REQUEST_INVALID, f"a connection needs a non-empty {name}"
                )
        if self.connected_at.tzinfo is not UTC:
            if self.connected_at.utcoffset() is None:
                raise RequestError(ErrorCode.REQUEST_INVALID, "connected_at needs a time zone")
            object.__setattr__(self, "connected_at", self.connected_at.astimezone(UTC))
        if self.metadata is not _NO_METADATA:
            # A read-only copy: only the registry changes its records.
            object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))


class ConnectionManager:
    """The connections of one server; an operation costs only its result."""

    def __init__(self) -> None:
        self._records: dict[str, ConnectionRecord] = {}
        self._users: dict[User, dict[str, None]] = {}
        self._orgs: dict[str, dict[str, None]] = {}
        # How many records each device of a user has; without a dict for each user, who mostly has
        # one device.
        self._devices: dict[tuple[User, str], int] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, connection_id: object) -> bool:
        return connection_id in self._records

    def add(self, record: ConnectionRecord) -> ConnectionRecord:
        """Add a connection; raises `RequestError` if its id is in use."""
        if record.connection_id in self._records:
            raise RequestError(
                ErrorCode.REQUEST_INVALID, f"the connection id {record.connection_id} is taken"
            )
        user = user_key(record.org, record.user_id)
        self._records[record.connection_id] = record
        self._users.setdefault(user, {})[record.connection_id] = None
        self._orgs.setdefault(record.org, {})[record.user_id] = None
        device = (user, record.device_id)
        self._devices[device] = self._devices.get(device, 0) + 1
        return record

    def remove(self, connection_id: str) -> ConnectionRecord | None:
        """Remove and return a connection; None if it is unknown."""
        record = self._records.pop(connection_id, None)
        if record is None:
            return None
        user = (record.org, record.user_id)
        device = (user, record.device_id)
        self._devices[device] -= 1
        if not self._devices[device]:
            del self._devices[device]
        connections = self._users[user]
        del connections[connection_id]
        if not connections:
            del self._users[user]
            users = self._orgs[record.org]
            del users[record.user_id]
            if not users:
                del self._orgs[record.org]
        return record

    def renew(
        self,
        connection_id: str,
        expires_at: float,
        *,
        issued_at: float = 0.0,
        token_id: str | None = None,
    ) -> ConnectionRecord:
        """Set the facts of the connection's newer token; the connection must exist."""
        record = replace(
            self._records[connection_id],
            expires_at=expires_at,
            issued_at=issued_at,
            token_id=token_id,
        )
        self._records[connection_id] = record
        return record

    def get(self, connection_id: str) -> ConnectionRecord | None:
        """A connection by its id; None if it is unknown."""
        return self._records.get(connection_id)

    def connections(self) -> tuple[ConnectionRecord, ...]:
        """A copy of all connections."""
        return tuple(self._records.values())

    def connections_of(self, org: str, user_id: str) -> tuple[ConnectionRecord, ...]:
        """The connections of one user."""
        return tuple(self._records[each] for each in self._users.get((org, user_id), ()))

    def devices_of(self, org: str, user_id: str) -> tuple[str, ...]:
        """The connected devices of one user."""
        return tuple(dict.fromkeys(each.device_id for each in self.connections_of(org, user_id)))

    def users(self, org: str) -> tuple[str, ...]:
        """The connected users of one org."""
        return tuple(self._orgs.get(org, ()))

    def orgs(self) -> tuple[str, ...]:
        """The orgs with connections."""
        return tuple(self._orgs)

    def stats(self) -> dict[str, int]:
        """The number of connections, users, orgs and devices."""
        return {
            "connections": len(self._records),
            "users": len(self._users),
            "orgs": len(self._orgs),
            "devices": len(self._devices),
        }
