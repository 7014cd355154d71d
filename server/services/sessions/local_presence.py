"""Tracks the sessions of this node's connections, and sends them the session events."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.membership import Memberships
from server.core.sessions.records import SessionKey, session_channel
from server.delivery import Hub
from server.delivery.channel import Channel
from server.ports import Link, PresenceManager
from server.services.sessions.encoding import (
    encode_announcement,
    encode_event,
    encode_signal,
    session_state,
)


class LocalPresence:
    """The session memberships of this node's connections. Nothing here awaits."""

    def __init__(
        self, memberships: Memberships, presence: PresenceManager, hub: Hub, tickets: ResumeTickets
    ) -> None:
        self.memberships = memberships
        self._presence = presence
        self._hub = hub
        self._tickets = tickets
        self._connected: set[str] = set()
        # The session in each connection's CONNECT; the connection may have left it since.
        self._initial_sessions: dict[str, str] = {}
        # The sessions of parked connections, each with the revision that it joined at.
        self._parked: dict[str, dict[SessionKey, int]] = {}
        # Parked connections that joined at a revision which this node has yet to handle.
        self._ahead: dict[SessionKey, dict[str, int]] = {}
        # Session events received while a connection joins, for each joining connection.
        self._joining: dict[SessionKey, dict[str, list[SessionEvent]]] = {}
        # Channels that may have no subscribers any more.
        self.idle_channels: set[str] = set()
        # Signals not sent to members that were behind.
        self.dropped_signals = 0

    # --- connections

    def add_connection(
        self, connection_id: str, link: Link, *, numbered: bool, initial_session: str | None = None
    ) -> None:
        """Register a connection; it may now join sessions."""
        self._connected.add(connection_id)
        if initial_session is not None:
            self._initial_sessions[connection_id] = initial_session
        self._hub.attach(connection_id, link, numbered=numbered)

    def is_connected(self, connection_id: str) -> bool:
        """Check that a connection is registered and not parked."""
        return connection_id in self._connected

    def initial_session(self, connection_id: str) -> str | None:
        """The session that a connection named in its CONNECT."""
        return self._initial_sessions.get(connection_id)

    def parked_sessions(self, connection_id: str) -> dict[SessionKey, int]:
        """The sessions of a parked connection, each with the newest revision that it knows."""
        parked = self._parked.get(connection_id, {})
        return {key: max(revision, self._revision(key)) for key, revision in parked.items()}

    def park(self, connection_id: str) -> None:
        """Park a disconnected connection; its sessions' events are kept for it."""
        self._connected.discard(connection_id)
        self._hub.park(connection_id)
        revisions = self.memberships.revisions_of(connection_id)
        self.memberships.remove_all(connection_id)
        self._park(connection_id, revisions)
        for key in revisions:
            self._presence.remove(connection_id, key, lost=True)

    def import_parked(
        self, connection_id: str, revisions: Mapping[SessionKey, int], initial_session: str | None
    ) -> None:
        """Park a connection of another node that the hub has restored."""
        self._park(connection_id, revisions)
        if initial_session is not None:
            self._initial_sessions[connection_id] = initial_session

    def resume(
        self, connection_id: str, user_id: str, link: Link, offset: str | None, first_frames: bytes
    ) -> bool:
        """Resume a parked connection in its sessions and send what it missed.

        Returns False, and sends nothing, if a session no longer admits its user or if missed
        events are lost.
        """
        sessions = self.parked_sessions(connection_id)
        self._unpark(connection_id)
        if not all(self._presence.can_rejoin(user_id, key) for key in sessions):
            return False
        if not self._hub.resume(connection_id, link, offset, first_frames):
            return False
        self._connected.add(connection_id)
        for key, revision in sessions.items():
            self.memberships.add(connection_id, user_id, key, revision)
            # Announces the user only if its grace period, and thus its presence, has ended.
            self._presence.rejoin(connection_id, user_id, key)
        return True

    def remove_connection(self, connection_id: str, *, lost: bool) -> None:
        """Remove a connection from all its sessions; if `lost`, its user has the grace period."""
        self._connected.discard(connection_id)
        self._unpark(connection_id)
        self._initial_sessions.pop(connection_id, None)
        keys = self.memberships.remove_all(connection_id)
        self.idle_channels.update(self._hub.detach(connection_id))
        for key in keys:
            self._presence.remove(connection_id, key, lost=lost)

    def remove(self, connection_id: str, key: SessionKey) -> None:
        """Remove a connection, parked or not, from one session; it receives no more of it."""
        was_member = self.memberships.remove(connection_id, key)
        parked = self._parked.get(connection_id, {})
        if not was_member and key not in parked:
            return
        parked.pop(key, None)
        self._forget_ahead(connection_id, key)
        name = session_channel(*key)
        channel = self._hub.channel(name)
        if channel is not None:
            # The connection was a member when the pending events were published.
            self._hub.flush_channel(channel)
            self._hub.unsubscribe(connection_id, channel)
            self.idle_channels.add(name)

    def end_forbidden(self, connection_id: str, user_id: str, key: SessionKey, ts_ms: int) -> None:
        """End a membership that the connection's new token no longer allows; it gets the event."""
        event = SessionEvent(
            key, SessionEventKind.REFUSED, 0, ts_ms, user_id, connection_id=connection_id
        )
        channel = self._hub.channel(session_channel(*key))
        self._evict(channel, event, (connection_id,), "forbidden")
        self._presence.remove(connection_id, key, lost=False)

    @contextmanager
    def collect_events(self, connection_id: str, key: SessionKey) -> Iterator[list[SessionEvent]]:
        """Collect a session's events while a connection joins; the join reply may lack them."""
        events: list[SessionEvent] = []
        joining = self._joining.setdefault(key, {})
        joining[connection_id] = events
        try:
            yield events
        finally:
            del joining[connection_id]
            if not joining:
                del self._joining[key]

    # --- session events

    def handle_event(self, event: SessionEvent) -> None:
        """Apply a session event, and send it to the members that it concerns."""
        channel = self._hub.channel(session_channel(*event.key))
        if event.kind is SessionEventKind.SIGNAL:
            if channel is not None:
                excluded = frozenset((event.connection_id,))
                self.dropped_signals += self._hub.broadcast_transient(
                    channel, encode_signal(event), excluded=excluded
                )
            return
        if event.kind is SessionEventKind.REFUSED:
            self._evict(channel, event, (event.connection_id,), "full")
            return
        for joining in self._joining.get(event.key, {}).values():
            joining.append(event)
        self.memberships.update_revision(event)
        if channel is not None:
            state = session_state(channel)
            state.revision = max(state.revision, event.revision)
        match event.kind:
            case SessionEventKind.JOINED | SessionEventKind.LEFT:
                self._announce(channel, event)
            case SessionEventKind.KICKED:
                self._kick(channel, event)
            case SessionEventKind.BARRED:
                self._drop_parked(event)
            case SessionEventKind.EXPIRED:
                self._expire(event.key)
            case SessionEventKind.CLOSED:
                self._close(channel, event)

    def _kick(self, channel: Channel | None, event: SessionEvent) -> None:
        member_ids = self.memberships.joined_before(event, of_user=True)
        for connection_id in member_ids:
            # A kicked connection must not resume, even one too slow to read the event.
            self._tickets.remove(connection_id)
        self._evict(channel, event, member_ids, "kicked")
        for connection_id in member_ids:
            if connection_id not in self._joining.get(event.key, ()):
                self._presence.remove(connection_id, event.key, lost=False)
        self._announce(channel, event)
        self._drop_parked(event)

    def _drop_parked(self, event: SessionEvent) -> None:
        """Drop the user's parked connections in the session: they must not resume."""
        for connection_id in self._tickets.parked_of((event.key[0], event.user_id)):
            if event.key in self._parked[connection_id]:
                self._tickets.remove(connection_id)
                self.remove_connection(connection_id, lost=False)

    def _close(self, channel: Channel | None, event: SessionEvent) -> None:
        member_ids = self.memberships.joined_before(event)
        self._evict(channel, event, member_ids, "closed")
        for keys in self._parked.values():
            keys.pop(event.key, None)
        self._ahead.pop(event.key, None)
        if channel is not None and channel.parked_ids():
            # A parked connection receives it on resuming, after all earlier events.
            head = encode_event("session_closed", event, reason="closed")
            self._hub.broadcast(channel, head, excluded=frozenset(member_ids))

    def _expire(self, key: SessionKey) -> None:
        """Drop an expired session: its log must not continue in a new session of this name."""
        name = session_channel(*key)
        channel = self._hub.channel(name)
        if channel is None or not self.memberships.is_empty(key):
            return
        for connection_id in channel.parked_ids():
            self._tickets.remove(connection_id)
            self.remove_connection(connection_id, lost=True)
        self._hub.flush_channel(channel)
        for client in channel.clients():
            self._hub.unsubscribe(client.id, channel)
        self.idle_channels.add(name)

    def _evict(
        self,
        channel: Channel | None,
        event: SessionEvent,
        connection_ids: tuple[str, ...],
        reason: str,
    ) -> None:
        if channel is not None:
            # Earlier messages must precede the last event.
            self._hub.flush_channel(channel)
        head = encode_event("session_closed", event, reason=reason)
        for connection_id in connection_ids:
            self._hub.send_to(connection_id, head)
            self.remove(connection_id, event.key)

    def _announce(self, channel: Channel | None, event: SessionEvent) -> None:
        """Send an event to all members except the connections of the user it is about."""
        head = encode_announcement(event)
        if channel is not None and head is not None:
            excluded = self.memberships.excluded_from(event).union(
                self._tickets.parked_of((event.key[0], event.user_id)),
                self._parked_ahead_of(event),
            )
            self._hub.broadcast(channel, head, excluded=excluded)

    # --- parked connections

    def _park(self, connection_id: str, revisions: Mapping[SessionKey, int]) -> None:
        self._parked[connection_id] = dict(revisions)
        for key, revision in revisions.items():
            if revision > self._revision(key):
                self._ahead.setdefault(key, {})[connection_id] = revision

    def _unpark(self, connection_id: str) -> None:
        for key in self._parked.pop(connection_id, ()):
            self._forget_ahead(connection_id, key)

    def _forget_ahead(self, connection_id: str, key: SessionKey) -> None:
        ahead = self._ahead.get(key, {})
        if ahead.pop(connection_id, None) is not None and not ahead:
            del self._ahead[key]

    def _parked_ahead_of(self, event: SessionEvent) -> list[str]:
        """The parked connections that know of an event which this node handles only now."""
        ahead = self._ahead.get(event.key, {})
        return [each for each, revision in ahead.items() if revision >= event.revision]

    def _revision(self, key: SessionKey) -> int:
        """The newest event of a session that this node has handled; 0 if it knows of none."""
        channel = self._hub.channel(session_channel(*key))
        return 0 if channel is None else session_state(channel).revision
