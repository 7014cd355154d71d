"""Who of this node's clients is in which session, and what they are told of it."""

from collections.abc import Iterator
from contextlib import contextmanager

from server.core.recovery.tickets import Tickets
from server.core.sessions.events import Happening, News
from server.core.sessions.membership import Seats
from server.core.sessions.records import SessionKey, session_channel
from server.delivery import Fanout
from server.delivery.channel import Channel
from server.ports import Assembly, Link
from server.services.sessions.encoding import session_event, signal_event


class Attendance:
    """Hears what happens in the sessions; nothing here waits."""

    def __init__(self, seats: Seats, assembly: Assembly, fanout: Fanout, tickets: Tickets) -> None:
        self.seats = seats
        self._assembly = assembly
        self._fanout = fanout
        self._tickets = tickets
        self._present: set[str] = set()
        # The session that each named when it came: it may be out of it by now.
        self._named: dict[str, str] = {}
        # What those were in who were cut off and may be back.
        self._parked: dict[str, dict[SessionKey, None]] = {}
        # What is heard while somebody is on the way in, for each of them.
        self._arriving: dict[SessionKey, dict[str, list[News]]] = {}
        # Channels that may have nobody who listens any more.
        self.emptied: set[str] = set()
        # Signals that somebody lagged too far behind to hear.
        self.dropped = 0

    # --- coming and going

    def enter(
        self, connection_id: str, link: Link, *, numbered: bool, named: str | None = None
    ) -> None:
        """A connection is there and may join."""
        self._present.add(connection_id)
        if named is not None:
            self._named[connection_id] = named
        self._fanout.attach(connection_id, link, numbered=numbered)

    def is_present(self, connection_id: str) -> bool:
        """Whether it is there, and was not cut off."""
        return connection_id in self._present

    def named(self, connection_id: str) -> str | None:
        """The session that it named when it came."""
        return self._named.get(connection_id)

    def parked_in(self, connection_id: str) -> tuple[SessionKey, ...]:
        """What a connection was in that was cut off."""
        return tuple(self._parked.get(connection_id, ()))

    def park(self, connection_id: str) -> None:
        """It was cut off and may be back: what is said is kept for it."""
        self._present.discard(connection_id)
        self._fanout.park(connection_id)
        keys = self.seats.leave_all(connection_id)
        self._parked[connection_id] = dict.fromkeys(keys)
        for key in keys:
            self._assembly.depart(connection_id, key, lost=True)

    def resume(
        self, connection_id: str, user_id: str, link: Link, offset: str | None, first: bytes
    ) -> bool:
        """It is back: it gets what it missed, and is where it was. False where that cannot be."""
        keys = self._parked.pop(connection_id)
        if not all(self._assembly.admits(user_id, key) for key in keys):
            return False
        if not self._fanout.resume(connection_id, link, offset, first):
            return False
        self._present.add(connection_id)
        for key in keys:
            self.seats.take(connection_id, user_id, key)
            # Told where its user was given up meanwhile; before that nobody has noticed anything.
            self._assembly.rejoin(connection_id, user_id, key)
        return True

    def end(self, connection_id: str, *, lost: bool) -> None:
        """It is gone, from every session that it was in."""
        self._present.discard(connection_id)
        self._parked.pop(connection_id, None)
        self._named.pop(connection_id, None)
        keys = self.seats.leave_all(connection_id)
        self.emptied.update(self._fanout.detach(connection_id))
        for key in keys:
            self._assembly.depart(connection_id, key, lost=lost)

    def vacate(self, connection_id: str, key: SessionKey) -> None:
        """It is out of one session, and hears no more of it."""
        was_in = self.seats.leave(connection_id, key)
        parked = self._parked.get(connection_id, {})
        if not was_in and key not in parked:
            return
        parked.pop(key, None)
        name = session_channel(*key)
        channel = self._fanout.channel(name)
        if channel is not None:
            # Who goes was there when this was said.
            self._fanout.flush_channel(channel)
            self._fanout.unlisten(connection_id, channel)
            self.emptied.add(name)

    @contextmanager
    def arriving(self, connection_id: str, key: SessionKey) -> Iterator[list[News]]:
        """While it is on the way in: the news that whoever lets it in may not know yet."""
        news: list[News] = []
        waiting = self._arriving.setdefault(key, {})
        waiting[connection_id] = news
        try:
            yield news
        finally:
            del waiting[connection_id]
            if not waiting:
                del self._arriving[key]

    # --- what happens

    def hear(self, news: News) -> None:
        """Tell those whom it concerns."""
        channel = self._fanout.channel(session_channel(*news.key))
        if news.what is Happening.SIGNAL:
            if channel is not None:
                skip = frozenset((news.connection_id,))
                self.dropped += self._fanout.say(channel, signal_event(news), skip=skip)
            return
        if news.what is Happening.REFUSED:
            self._turn_out(channel, news, (news.connection_id,), "full")
            return
        for waiting in self._arriving.get(news.key, {}).values():
            waiting.append(news)
        self.seats.hear(news)
        match news.what:
            case Happening.JOINED:
                self._announce(channel, "user_joined", news)
            case Happening.LEFT:
                self._announce(channel, "user_left", news)
            case Happening.KICKED:
                self._kick(channel, news)
            case Happening.BARRED:
                self._bar(news)
            case Happening.OVER:
                self._forget(news.key)
            case Happening.CLOSED:
                self._close(channel, news)

    def _kick(self, channel: Channel | None, news: News) -> None:
        present = self.seats.before(news, of_user=True)
        for connection_id in present:
            # Whoever was sent away comes back as somebody new, also who reads too slowly for this.
            self._tickets.forget(connection_id)
        self._turn_out(channel, news, present, "kicked")
        for connection_id in present:
            if connection_id not in self._arriving.get(news.key, ()):
                self._assembly.depart(connection_id, news.key, lost=False)
        self._announce(channel, "user_left", news)
        self._bar(news)

    def _bar(self, news: News) -> None:
        """Whoever was cut off there comes back as somebody new."""
        for connection_id in self._tickets.parked_of((news.key[0], news.user_id)):
            if news.key in self._parked[connection_id]:
                self._tickets.forget(connection_id)
                self.end(connection_id, lost=False)

    def _close(self, channel: Channel | None, news: News) -> None:
        present = self.seats.before(news)
        self._turn_out(channel, news, present, "closed")
        for keys in self._parked.values():
            keys.pop(news.key, None)
        if channel is not None and channel.held_ids():
            # Who was cut off hears it when it is back, behind all that was said before.
            event = session_event("session_closed", news, reason="closed")
            self._fanout.tell(channel, event, skip=frozenset(present))

    def _forget(self, key: SessionKey) -> None:
        """Its time is over: what was said there must not be taken for what begins anew."""
        name = session_channel(*key)
        channel = self._fanout.channel(name)
        if channel is None or not self.seats.is_empty(key):
            return
        for connection_id in channel.held_ids():
            self._tickets.forget(connection_id)
            self.end(connection_id, lost=True)
        self._fanout.flush_channel(channel)
        for client in channel.clients():
            self._fanout.unlisten(client.id, channel)
        self.emptied.add(name)

    def _turn_out(
        self, channel: Channel | None, news: News, connections: tuple[str, ...], reason: str
    ) -> None:
        if channel is not None:
            # What was said before comes before the news that no more will be.
            self._fanout.flush_channel(channel)
        event = session_event("session_closed", news, reason=reason)
        for connection_id in connections:
            self._fanout.tell_one(connection_id, event)
            self.vacate(connection_id, news.key)

    def _announce(self, channel: Channel | None, event: str, news: News) -> None:
        """Tell everybody but the user whom it is about, who knows."""
        if channel is not None:
            told = session_event(
                event, news, user_id=news.user_id, participant_count=news.participant_count
            )
            away = self._tickets.parked_of((news.key[0], news.user_id))
            self._fanout.tell(channel, told, skip=self.seats.unconcerned(news).union(away))
