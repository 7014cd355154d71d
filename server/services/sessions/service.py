"""Joins, leaves, moderates and resumes shared sessions for this node's connections."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from client_sdk.contract import ErrorCode, Scope
from client_sdk.contract import Position as PositionRequest
from server.access import AuthorizationRule, Principal, find_refusals
from server.core.errors import AccessError, RequestError
from server.core.log.entries import Position
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.membership import Memberships, Uses
from server.core.sessions.participants import Participants
from server.core.sessions.records import SessionKey, kind_of, session_channel, session_closed
from server.core.sessions.session_state import SessionState
from server.delivery import Hub
from server.delivery.channel import Channel
from server.ports import Broker, Link, PresenceManager
from server.services.node_subscriptions import Missed, NodeSubscriptions, entries_since
from server.services.sessions.encoding import Reply, encode_within, message_bodies
from server.services.sessions.local_presence import LocalPresence

_MAX_UNFORGOTTEN = 100_000
# So many deletions a sweep tries again.
_MAX_RETRIES = 4


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """Limits of sessions on one node."""

    max_per_connection: int = 0
    metadata_bytes: int = 4 * 1024
    backlog_messages: int = 1000
    backlog_bytes: int = 1024 * 1024
    backlog_age_ms: int = 300_000


class SessionsService:
    """Shared sessions, for the connections of this node."""

    def __init__(
        self,
        config: SessionsConfig,
        broker: Broker,
        presence: PresenceManager,
        node_subscriptions: NodeSubscriptions,
        hub: Hub,
        tickets: ResumeTickets,
        rule: AuthorizationRule | None = None,
        *,
        uses: Uses | None = None,
    ) -> None:
        self._config = config
        self._broker = broker
        self._presence = presence
        self._node_subscriptions = node_subscriptions
        self._hub = hub
        self._rule = rule or AuthorizationRule()
        self.memberships = Memberships(max_per_connection=config.max_per_connection, uses=uses)
        self.local_presence = LocalPresence(self.memberships, presence, hub, tickets)
        # Joins with a position: what the client had missed was known, or not.
        self.recovered = 0
        self.not_recovered = 0
        # Expired sessions whose logs could not be deleted yet.
        self._unforgotten: dict[SessionKey, None] = {}

    # --- connections

    def add_connection(
        self,
        connection_id: str,
        link: Link,
        *,
        numbered: bool = False,
        initial_session: str | None = None,
    ) -> None:
        """Register a connection; if `numbered`, its events carry offsets for recovery.

        `initial_session` is the session in its CONNECT; the caller joins it.
        """
        self.local_presence.add_connection(
            connection_id, link, numbered=numbered, initial_session=initial_session
        )

    def is_member(self, connection_id: str, org: str, session_id: str) -> bool:
        """Check that a connection is a member of a session."""
        return (connection_id, (org, session_id)) in self.memberships

    async def remove_connection(self, connection_id: str, *, deliberate: bool) -> None:
        """Remove a connection; unless `deliberate`, its user has the grace period."""
        self.local_presence.remove_connection(connection_id, lost=not deliberate)
        await self.release_idle()

    def authorize(self, principal: Principal, session_id: str) -> None:
        """Raise `AccessError` if the token does not allow the session, or for an invalid name."""
        principal.require(Scope.SESSION_JOIN)
        if not principal.may_join(session_id):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the token does not allow this session")
        kind_of(session_id)

    async def join(
        self,
        connection_id: str,
        principal: Principal,
        session_id: str,
        *,
        since: PositionRequest | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Reply:
        """Join a session, and create it if it does not exist.

        `since` requests the messages after a position; `recovered` is false if they are unknown.
        """
        self.authorize(principal, session_id)
        await self._rule.check_join(principal, session_id)
        encode_within(metadata or {}, self._config.metadata_bytes)
        key = (principal.org, session_id)
        seen = None if since is None else Position(since.epoch, since.seq)
        try:
            with self.hold(key):
                channel, missed = await self.open(key, seen)
                participants = await self._join(
                    connection_id, principal.user_id, key, metadata, channel
                )
                # No await from here on: messages published later follow this reply.
                self._subscribe(connection_id, channel, keep_existing=seen is None)
        except BaseException:
            await self.release(key)
            raise
        messages = None if seen is None else entries_since(channel.state, seen, missed)
        self.recovered += messages is not None
        self.not_recovered += seen is not None and messages is None
        return {
            "ok": True,
            "session_id": session_id,
            **participants.body(),
            "epoch": channel.state.position.epoch,
            # The last sent `seq`; a member that is behind gets the rest after this reply.
            "seq": self._hub.interval_and_seq(connection_id, channel)[1],
            "recovered": messages is not None,
            "messages": message_bodies(channel, messages or ()),
            "metadata": dict(participants.metadata),
        }

    def hold(self, key: SessionKey) -> AbstractContextManager[None]:
        """Keep the session's channel open inside the context, even without members."""
        return self._node_subscriptions.hold(session_channel(*key))

    async def open(self, key: SessionKey, seen: Position | None) -> tuple[Channel, Missed | None]:
        """Receive a session; returns its channel and the entries after `seen`, None if unknown.

        You must call `release` afterwards, unless a connection has joined.
        """
        return await self._node_subscriptions.subscribe(
            session_channel(*key), lambda head, latest: self._create_state(key[1], head), seen
        )

    async def release(self, key: SessionKey) -> None:
        """Stop receiving a session, unless it has members or is held."""
        await self._node_subscriptions.release(session_channel(*key))

    async def leave(self, connection_id: str, principal: Principal, session_id: str) -> Reply:
        """Leave a session; raises `RequestError` if the connection is no member."""
        key = (principal.org, session_id)
        await self.require_member(connection_id, key)
        await self._presence.leave(connection_id, key)
        self.local_presence.remove(connection_id, key)
        await self.release_idle()
        return {"ok": True}

    async def kick(self, principal: Principal, session_id: str, user_id: str) -> Reply:
        """Remove a user from a session, on every device; needs the `session:moderate` scope."""
        self._authorize_moderation(principal, session_id)
        connections = await self._presence.kick((principal.org, session_id), user_id)
        await self.release_idle()
        return {"ok": True, "connections": connections}

    async def close(self, principal: Principal, session_id: str) -> Reply:
        """Close a session for all members; needs the `session:moderate` scope."""
        self._authorize_moderation(principal, session_id)
        connections = await self._presence.close((principal.org, session_id))
        await self.release_idle()
        return {"ok": True, "connections": connections}

    async def is_allowed(self, principal: Principal, keys: Iterable[SessionKey]) -> bool:
        """Whether the application's rule allows all these sessions."""
        names = {session_id for _, session_id in keys}
        return not await find_refusals(self._rule.check_join, principal, names)

    async def end_forbidden(self, connection_id: str, principal: Principal, ts_ms: int) -> None:
        """End the memberships of a connection that its refreshed token no longer allows."""
        for key in self.memberships.of_connection(connection_id):
            try:
                self.authorize(principal, key[1])
            except AccessError:
                self.local_presence.end_forbidden(connection_id, principal.user_id, key, ts_ms)
        # Awaits only once all these have ended: no message may come of them meanwhile.
        names = {key[1] for key in self.memberships.of_connection(connection_id)}
        refusals = await find_refusals(self._rule.check_join, principal, names)
        for key in self.memberships.of_connection(connection_id):
            if key[1] in refusals:
                self.local_presence.end_forbidden(connection_id, principal.user_id, key, ts_ms)
        await self.release_idle()

    async def participants(self, principal: Principal, session_id: str) -> Reply:
        """The participants of a session; none if the session does not exist."""
        self.authorize(principal, session_id)
        participants = await self._presence.participants((principal.org, session_id))
        return {"ok": True, **(participants or Participants(0, ())).body()}

    async def require_member(self, connection_id: str, key: SessionKey) -> None:
        """Raise `RequestError` if a connection is no member: not joined, or session closed."""
        if (connection_id, key) not in self.memberships:
            await self.refuse_absent(key)

    async def refuse_absent(self, key: SessionKey) -> NoReturn:
        """Raise the `RequestError` for a connection that is no member."""
        participants = await self._presence.participants(key)
        if participants is not None and participants.closed:
            raise session_closed()
        raise RequestError(
            ErrorCode.SESSION_NOT_JOINED, "this connection is not in the session: join first"
        )

    # --- expiry

    async def sweep(self) -> None:
        """Remove users whose grace period has ended, and delete expired sessions' logs."""
        expired = await self._presence.sweep()
        await self.release_idle()
        for key in [*islice(self._unforgotten, _MAX_RETRIES)]:
            participants = await self._presence.participants(key)
            del self._unforgotten[key]
            # Not the log of a new session.
            if participants is None:
                await self._forget(key)
        for key in expired:
            await self._forget(key)

    async def _forget(self, key: SessionKey) -> None:
        if await self._broker.forget(session_channel(*key)):
            return
        # The broker is unavailable, or another node is about to release the channel.
        self._unforgotten[key] = None
        if len(self._unforgotten) > _MAX_UNFORGOTTEN:
            del self._unforgotten[next(iter(self._unforgotten))]

    # --- internal

    def _authorize_moderation(self, principal: Principal, session_id: str) -> None:
        principal.require(Scope.SESSION_MODERATE)
        self.authorize(principal, session_id)

    async def _join(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None,
        channel: Channel,
    ) -> Participants:
        if not self.local_presence.is_connected(connection_id):
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
        self.memberships.check_limit(connection_id, key)
        with self.local_presence.collect_events(connection_id, key) as events:
            participants = await self._presence.join(connection_id, user_id, key, metadata)
        participants = participants.apply(events, user_id)
        # Flushing may find the connection broken and remove it.
        self._hub.flush_channel(channel)
        if not self.local_presence.is_connected(connection_id):
            # Its departure may have been processed before this join. `lost`, because its user
            # may have been within the grace period.
            self._presence.remove(connection_id, key, lost=True)
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
        self.memberships.add(connection_id, user_id, key, participants.revision)
        return participants

    def _subscribe(self, connection_id: str, channel: Channel, *, keep_existing: bool) -> None:
        if keep_existing and self._hub.is_subscribed(connection_id, channel):
            # Already subscribed: a new subscription at the head would skip pending messages.
            self._hub.flush_channel(channel)
        else:
            self._hub.subscribe(connection_id, channel, 0)

    async def release_idle(self) -> None:
        """Stop receiving sessions without members on this node."""
        idle = self.local_presence.idle_channels
        while idle:
            name = idle.pop()
            # A channel that is opening is released by its opener; a tick must not wait for that.
            if self._hub.channel(name) is not None:
                await self._node_subscriptions.release(name)

    def _create_state(self, session_id: str, head: Position) -> SessionState:
        return SessionState(
            session_id,
            head,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
            max_age_ms=self._config.backlog_age_ms,
        )
