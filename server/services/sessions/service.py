"""Shared sessions: who comes, who goes, and who may send others away."""

from collections.abc import Mapping
from dataclasses import dataclass

from client_sdk.contract import ErrorCode, Position, Scope
from server.access import Principal
from server.core.errors import AccessError, FloorcastError, RequestError
from server.core.log.entries import Position as Place
from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.membership import Memberships
from server.core.sessions.participants import Participants
from server.core.sessions.records import SessionKey, kind_of, session_channel, session_closed
from server.delivery import Hub
from server.delivery.channel import Channel
from server.delivery.session_state import SessionState
from server.ports import Broker, Link, PresenceManager
from server.services.node_subscriptions import NodeSubscriptions, entries_since
from server.services.sessions.encoding import Reply, encode_within, message_bodies
from server.services.sessions.local_presence import LocalPresence


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """What sessions are held to on this node."""

    max_per_connection: int = 0
    metadata_bytes: int = 4 * 1024
    backlog_messages: int = 1000
    backlog_bytes: int = 1024 * 1024


class SessionsService:
    """Joining and leaving, for the clients of this node."""

    def __init__(
        self,
        config: SessionsConfig,
        broker: Broker,
        presence: PresenceManager,
        node_subscriptions: NodeSubscriptions,
        hub: Hub,
        tickets: ResumeTickets,
    ) -> None:
        self._config = config
        self._broker = broker
        self._presence = presence
        self._node_subscriptions = node_subscriptions
        self._hub = hub
        self.memberships = Memberships(max_per_connection=config.max_per_connection)
        self.local_presence = LocalPresence(self.memberships, presence, hub, tickets)
        self.recovered = 0

    # --- coming and going

    def add_connection(
        self,
        connection_id: str,
        link: Link,
        *,
        numbered: bool = False,
        initial_session: str | None = None,
    ) -> None:
        """A connection is there and may join; `numbered`, its events have offsets.

        `named` is the session that it is to be in at once.
        """
        self.local_presence.add_connection(
            connection_id, link, numbered=numbered, initial_session=initial_session
        )

    def park(self, connection_id: str) -> None:
        """The connection was cut off and may be back: what is said is kept for it."""
        self.local_presence.park(connection_id)

    def is_same_session(
        self, connection_id: str, principal: Principal, session_id: str | None
    ) -> bool:
        """Whether this is where a client was that is back: another session is a new beginning."""
        return (
            session_id is None
            or session_id == self.local_presence.initial_session(connection_id)
            or (principal.org, session_id) in self.local_presence.parked_sessions(connection_id)
        )

    def resume(
        self,
        connection_id: str,
        principal: Principal,
        link: Link,
        offset: str | None,
        first_frames: bytes = b"",
    ) -> bool:
        """It is back: it gets what it missed, and is where it was. False where that cannot be."""
        try:
            for _, session_id in self.local_presence.parked_sessions(connection_id):
                self.authorize(principal, session_id)
        except FloorcastError:
            return False
        return self.local_presence.resume(
            connection_id, principal.user_id, link, offset, first_frames
        )

    def is_member(self, connection_id: str, org: str, session_id: str) -> bool:
        """Whether a connection is in a session."""
        return (connection_id, (org, session_id)) in self.memberships

    async def remove_connection(self, connection_id: str, *, deliberate: bool) -> None:
        """The connection has ended; one that was cut off has time to come back."""
        self.local_presence.remove_connection(connection_id, lost=not deliberate)
        await self._release_idle()

    def authorize(self, principal: Principal, session_id: str) -> None:
        """Refuse who may not be in a session of this name."""
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
        since: Position | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Reply:
        """Come into a session; the first makes it."""
        self.authorize(principal, session_id)
        encode_within(metadata or {}, self._config.metadata_bytes)
        key = (principal.org, session_id)
        name = session_channel(*key)
        seen = None if since is None else Place(since.epoch, since.seq)
        try:
            with self._node_subscriptions.hold(name):
                channel, missed = await self._node_subscriptions.subscribe(
                    name, lambda head, latest: self._create_state(session_id, head), seen
                )
                gathering = await self._join(
                    connection_id, principal.user_id, key, metadata, channel
                )
                # From here on nothing waits: what is said now comes after the answer.
                self._subscribe(connection_id, channel, keep_existing=seen is None)
        except BaseException:
            await self._node_subscriptions.release(name)
            raise
        messages = None if seen is None else entries_since(channel.state, seen, missed)
        self.recovered += messages is not None
        return {
            "ok": True,
            "session_id": session_id,
            **gathering.body(),
            "epoch": channel.state.position.epoch,
            # What was sent until now; who lags gets the rest after this answer.
            "seq": self._hub.interval_and_seq(connection_id, channel)[1],
            "recovered": messages is not None,
            "messages": message_bodies(channel, messages or ()),
            "metadata": dict(gathering.metadata),
        }

    async def leave(self, connection_id: str, principal: Principal, session_id: str) -> Reply:
        """Go out of a session."""
        key = (principal.org, session_id)
        await self.require_member(connection_id, key)
        await self._presence.leave(connection_id, key)
        self.local_presence.remove(connection_id, key)
        await self._release_idle()
        return {"ok": True}

    async def kick(self, principal: Principal, session_id: str, user_id: str) -> Reply:
        """Send a user out of a session, on every device."""
        principal.require(Scope.SESSION_MODERATE)
        connections = await self._presence.kick((principal.org, session_id), user_id)
        await self._release_idle()
        return {"ok": True, "connections": connections}

    async def close(self, principal: Principal, session_id: str) -> Reply:
        """End a session for everybody."""
        principal.require(Scope.SESSION_MODERATE)
        connections = await self._presence.close((principal.org, session_id))
        await self._release_idle()
        return {"ok": True, "connections": connections}

    async def participants(self, principal: Principal, session_id: str) -> Reply:
        """Who is there; in a session that nobody has made, nobody is."""
        self.authorize(principal, session_id)
        gathering = await self._presence.participants((principal.org, session_id))
        return {"ok": True, **(gathering or Participants(0, ())).body()}

    async def require_member(self, connection_id: str, key: SessionKey) -> None:
        """Refuse a connection that is not in a session, and say why."""
        if (connection_id, key) in self.memberships:
            return
        gathering = await self._presence.participants(key)
        if gathering is not None and gathering.closed:
            raise session_closed()
        raise RequestError(ErrorCode.SESSION_NOT_JOINED, "this connection is not in the session")

    # --- as time goes by

    async def sweep(self) -> None:
        """Give up who did not come back, and forget the sessions whose time is over."""
        over = await self._presence.sweep()
        await self._release_idle()
        for key in over:
            await self._broker.forget(session_channel(*key))

    # --- inside

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
        with self.local_presence.collect_events(connection_id, key) as news:
            gathering = await self._presence.join(connection_id, user_id, key, metadata)
        gathering = gathering.apply(news, user_id)
        # What waits may find the connection broken, and end it.
        self._hub.flush_channel(channel)
        if not self.local_presence.is_connected(connection_id):
            # What was said when it ended may have come to be before this has let it in. Its user
            # may have been waited for, and is again.
            self._presence.remove(connection_id, key, lost=True)
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
        self.memberships.add(connection_id, user_id, key, gathering.revision)
        return gathering

    def _subscribe(self, connection_id: str, channel: Channel, *, keep_existing: bool) -> None:
        if keep_existing and self._hub.is_subscribed(connection_id, channel):
            # It is in already: to begin at the head would lose what it is still owed.
            self._hub.flush_channel(channel)
        else:
            self._hub.subscribe(connection_id, channel, 0)

    async def _release_idle(self) -> None:
        """Follow no session any more that nobody here is in."""
        emptied = self.local_presence.idle_channels
        while emptied:
            name = emptied.pop()
            # Who is opening it lets it go again; a tick must not wait for that.
            if self._hub.channel(name) is not None:
                await self._node_subscriptions.release(name)

    def _create_state(self, session_id: str, head: Place) -> SessionState:
        return SessionState(
            session_id,
            head,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
        )
