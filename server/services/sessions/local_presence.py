"""Who of this node's clients is in which session, and what they are told of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from server.core.recovery.tickets import ResumeTickets
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.membership import Memberships
from server.core.sessions.records import SessionKey, session_channel
from server.delivery import Hub
from server.delivery.channel import Channel
from server.ports import Link, PresenceManager
from server.services.sessions.encoding import encode_event, encode_signal


class LocalPresence:
    """Hears what happens in the sessions; nothing here waits."""

    def __init__(
        self, memberships: Memberships, presence: PresenceManager, hub: Hub, tickets: ResumeTickets
    ) -> None:
        self.memberships = memberships
        self._presence = presence
        self._hub = hub
        self._tickets = tickets
        self._connected: set[str] = set()
        # The session that each named when it came: it may be out of it by now.
        self._initial_sessions: dict[str, str] = {}
        # What those were in who were cut off and may be back.
        self._parked: dict[str, dict[SessionKey, None]] = {}
        # What is heard while somebody is on the way in, for each of them.
        self._joining: dict[SessionKey, dict[str, list[SessionEvent]]] = {}
        # Channels that may have nobody who listens any more.
        self.idle_channels: set[str] = set()
        # Signals that somebody lagged too far behind to hear.
        self.dropped_signals = 0

    # --- coming and going

    def add_connection(
        self, connection_id: str, link: Link, *, numbered: bool, initial_session: str | None = None
    ) -> None:
        """A connection is there and may join."""
        self._connected.add(connection_id)
        if initial_session is not None:
            self._initial_sessions[connection_id] = initial_session
        self._hub.attach(connection_id, link, numbered=numbered)

    def is_connected(self, connection_id: str) -> bool:
        """Whether it is there, and was not cut off."""
        return connection_id in self._connected

    def initial_session(self, connection_id: str) -> str | None:
        """The session that it named when it came."""
        return self._initial_sessions.get(connection_id)

    def parked_sessions(self, connection_id: str) -> tuple[SessionKey, ...]:
        """What a connection was in that was cut off."""
        return tuple(self._parked.get(connection_id, ()))

    def park(self, connection_id: str) -> None:
        """It was cut off and may be back: what is said is kept for it."""
        self._connected.discard(connection_id)
        self._hub.park(connection_id)
        keys = self.memberships.remove_all(connection_id)
        self._parked[connection_id] = dict.fromkeys(keys)
        for key in keys:
            self._presence.remove(connection_id, key, lost=True)

    def resume(
        self, connection_id: str, user_id: str, link: Link, offset: str | None, first_frames: bytes
    ) -> bool:
        """It is back: it gets what it missed, and is where it was. False where that cannot be."""
        keys = self._parked.pop(connection_id)
        if not all(self._presence.can_rejoin(user_id, key) for key in keys):
            return False
        if not self._hub.resume(connection_id, link, offset, first_frames):
            return False
        self._connected.add(connection_id)
        for key in keys:
            self.memberships.add(connection_id, user_id, key)
            # Told where its user was given up meanwhile; before that nobody has noticed anything.
            self._presence.rejoin(connection_id, user_id, key)
        return True

    def remove_connection(self, connection_id: str, *, lost: bool) -> None:
        """It is gone, from every session that it was in."""
        self._connected.discard(connection_id)
        self._parked.pop(connection_id, None)
        self._initial_sessions.pop(connection_id, None)
        keys = self.memberships.remove_all(connection_id)
        self.idle_channels.update(self._hub.detach(connection_id))
        for key in keys:
            self._presence.remove(connection_id, key, lost=lost)

    def remove(self, connection_id: str, key: SessionKey) -> None:
        """It is out of one session, and hears no more of it."""
        was_in = self.memberships.remove(connection_id, key)
        parked = self._parked.get(connection_id, {})
        if not was_in and key not in parked:
            return
        parked.pop(key, None)
        name = session_channel(*key)
        channel = self._hub.channel(name)
        if channel is not None:
            # Who goes was there when this was said.
            self._hub.flush_channel(channel)
            self._hub.unsubscribe(connection_id, channel)
            self.idle_channels.add(name)

    @contextmanager
    def collect_events(self, connection_id: str, key: SessionKey) -> Iterator[list[SessionEvent]]:
        """While it is on the way in: the news that whoever lets it in may not know yet."""
        news: list[SessionEvent] = []
        waiting = self._joining.setdefault(key, {})
        waiting[connection_id] = news
        try:
            yield news
        finally:
            del waiting[connection_id]
            if not waiting:
                del self._joining[key]

    # --- what happens

    def handle_event(self, event: SessionEvent) -> None:
        """Tell those whom it concerns."""
        channel = self._hub.channel(session_channel(*event.key))
        if event.kind is SessionEventKind.SIGNAL:
            if channel is not None:
                skip = frozenset((event.connection_id,))
                self.dropped_signals += self._hub.broadcast_transient(
                    channel, encode_signal(event), excluded=skip
                )
            return
        if event.kind is SessionEventKind.REFUSED:
            self._evict(channel, event, (event.connection_id,), "full")
            return
        for waiting in self._joining.get(event.key, {}).values():
            waiting.append(event)
        self.memberships.update_revision(event)
        match event.kind:
            case SessionEventKind.JOINED:
                self._announce(channel, "user_joined", event)
            case SessionEventKind.LEFT:
                self._announce(channel, "user_left", event)
            case SessionEventKind.KICKED:
                self._kick(channel, event)
            case SessionEventKind.BARRED:
                self._drop_parked(event)
            case SessionEventKind.EXPIRED:
                self._expire(event.key)
            case SessionEventKind.CLOSED:
                self._close(channel, event)

    def _kick(self, channel: Channel | None, event: SessionEvent) -> None:
        present = self.memberships.joined_before(event, of_user=True)
        for connection_id in present:
            # Whoever was sent away comes back as somebody new, also who reads too slowly for this.
            self._tickets.remove(connection_id)
        self._evict(channel, event, present, "kicked")
        for connection_id in present:
            if connection_id not in self._joining.get(event.key, ()):
                self._presence.remove(connection_id, event.key, lost=False)
        self._announce(channel, "user_left", event)
        self._drop_parked(event)

    def _drop_parked(self, event: SessionEvent) -> None:
        """Whoever was cut off there comes back as somebody new."""
        for connection_id in self._tickets.parked_of((event.key[0], event.user_id)):
            if event.key in self._parked[connection_id]:
                self._tickets.remove(connection_id)
                self.remove_connection(connection_id, lost=False)

    def _close(self, channel: Channel | None, event: SessionEvent) -> None:
        present = self.memberships.joined_before(event)
        self._evict(channel, event, present, "closed")
        for keys in self._parked.values():
            keys.pop(event.key, None)
        if channel is not None and channel.parked_ids():
            # Who was cut off hears it when it is back, behind all that was said before.
            frame = encode_event("session_closed", event, reason="closed")
            self._hub.broadcast(channel, frame, excluded=frozenset(present))

    def _expire(self, key: SessionKey) -> None:
        """Its time is over: what was said there must not be taken for what begins anew."""
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
            # What was said before comes before the news that no more will be.
            self._hub.flush_channel(channel)
        frame = encode_event("session_closed", event, reason=reason)
        for connection_id in connection_ids:
            self._hub.send_to(connection_id, frame)
            self.remove(connection_id, event.key)

    def _announce(self, channel: Channel | None, name: str, event: SessionEvent) -> None:
        """Tell everybody but the user whom it is about, who knows."""
        if channel is not None:
            told = encode_event(
                name, event, user_id=event.user_id, participant_count=event.participant_count
            )
            away = self._tickets.parked_of((event.key[0], event.user_id))
            self._hub.broadcast(
                channel, told, excluded=self.memberships.excluded_from(event).union(away)
            )
