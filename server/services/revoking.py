"""Revokes tokens on all nodes, and ends the connections that they opened."""

from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from server.core.connections import ConnectionManager
from server.core.errors import LimitError
from server.core.limits.shares import Level, share_error
from server.core.revocations import Revocation, Revocations, token_revoked
from server.delivery import Hub
from server.ports import Clock, KeptValues, Occupancy
from server.services.cluster.cluster import ClusterQueries, Collected
from server.services.cluster.questions import CountRevoked

_KIND = "revocations"
_MAX_PER_ORG = 25_000
_REVOCATION: TypeAdapter[Revocation] = TypeAdapter(Revocation)


class TokenRevocation:
    """The revocations of all orgs: kept until the tokens have ended, and known on every node."""

    def __init__(
        self,
        kept: KeptValues,
        revocations: Revocations,
        registry: ConnectionManager,
        hub: Hub,
        cluster: ClusterQueries,
        occupancy: Occupancy,
        clock: Clock,
        *,
        keep_seconds: float,
    ) -> None:
        self._kept = kept
        self._revocations = revocations
        self._registry = registry
        self._hub = hub
        self._cluster = cluster
        self._occupancy = occupancy
        self._clock = clock
        self._keep_seconds = keep_seconds
        kept.follow(_KIND, self._on_change)

    async def revoke(
        self,
        org: str,
        *,
        user_id: str | None = None,
        token_id: str | None = None,
        before: float | None = None,
        seconds: float | None = None,
    ) -> tuple[Revocation, Collected[int]]:
        """Refuse a user's tokens issued before a time, by default now, or one token.

        The user's will is taken back. Returns also how many connections this ends. Raises
        `LimitError` if the org has too many.
        """
        now = self._clock.time()
        if user_id is not None and before is None:
            before = now
        until = now + (self._keep_seconds if seconds is None else seconds)
        revocation = self._joined(Revocation(org, user_id, token_id, before, until))
        if (
            self._revocations.get(org, revocation.id) is None
            and self._revocations.count_of(org) >= _MAX_PER_ORG
        ):
            raise _too_many()
        connections = await self._cluster.count_revoked(CountRevoked(revocation))
        encoded = _REVOCATION.dump_json(revocation)
        await self._kept.put(_KIND, {revocation.id: encoded}, expires_at=revocation.until)
        if user_id is not None:
            # After the revocation: from now on the user's tokens set no other one.
            await self._occupancy.remove_will((org, user_id))
        return revocation, connections

    def page(self, org: str, after: str, limit: int) -> list[Revocation]:
        """The revocations of an org whose ids follow `after`, sorted by id."""
        return self._revocations.page(org, after, limit)

    async def lift(self, org: str, revocation_id: str) -> Revocation | None:
        """Accept the tokens again; returns the revocation, None if there is none."""
        revocation = self._revocations.get(org, revocation_id)
        if revocation is None:
            return None
        await self._kept.delete(_KIND, revocation_id)
        return revocation

    def _joined(self, revocation: Revocation) -> Revocation:
        """A revocation that refuses no less than the one that it replaces."""
        earlier = self._revocations.get(revocation.org, revocation.id)
        if earlier is None:
            return revocation
        before = None
        if earlier.before is not None and revocation.before is not None:
            before = max(earlier.before, revocation.before)
        return replace(revocation, before=before, until=max(earlier.until, revocation.until))

    def _on_change(self, revocation_id: str, value: bytes | None) -> None:
        if value is None:
            self._revocations.remove(revocation_id)
            return
        try:
            revocation = _REVOCATION.validate_json(value)
        except ValidationError:
            # Of a newer version: what it refuses there cannot be known here.
            return
        self._revocations.put(revocation)
        self._end_connections(revocation)

    def _end_connections(self, revocation: Revocation) -> None:
        if revocation.user_id is None:
            records = self._registry.connections()
        else:
            records = self._registry.connections_of(revocation.org, revocation.user_id)
        for record in records:
            link = self._hub.link_of(record.connection_id)
            if link is not None and revocation.matches(record):
                link.disconnect(token_revoked(), reconnect=False, namespace=record.namespace)


def _too_many() -> LimitError:
    return share_error(Level.ORG, "revocations", _MAX_PER_ORG)
