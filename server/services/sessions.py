"""Shared sessions: who comes, who goes, and who may send others away."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from client_sdk.contract import ErrorCode, Position, Scope
from server.access import Principal
from server.core.entries import Entry
from server.core.entries import Position as Place
from server.core.errors import AccessError, FloorcastError, RequestError
from server.core.presence import Departure
from server.core.session_records import (
    Joined,
    Left,
    SessionKey,
    SessionRecord,
    SessionRules,
    kind_of,
)
from server.core.sessions import Sessions
from server.core.tickets import Tickets
from server.delivery import Fanout
from server.delivery.channel import Channel
from server.delivery.session_view import SessionView
from server.ports import Broker, Clock, Link
from server.services.following import Following
from server.services.session_wire import (
    Reply,
    encode_within,
    message_bodies,
    session_channel,
    session_event,
)


@dataclass(frozen=True, slots=True)
class SessionsConfig:
    """What sessions are held to."""

    rules: SessionRules
    metadata_bytes: int = 4 * 1024
    backlog_messages: int = 1000
    backlog_bytes: int = 1024 * 1024


class SessionsService:
    """Joining and leaving, on this node."""

    def __init__(
        self,
        config: SessionsConfig,
        broker: Broker,
        following: Following,
        fanout: Fanout,
        tickets: Tickets,
        clock: Clock,
    ) -> None:
        self._config = config
        self._broker = broker
        self._following = following
        self._fanout = fanout
        self._tickets = tickets
        self._clock = clock
        self.registry = Sessions(config.rules)
        self._present: set[str] = set()
        # What those were in who were cut off and may be back.
        self._parked: dict[str, dict[SessionKey, None]] = {}
        self.recovered = 0

    # --- coming and going

    def enter(self, connection_id: str, link: Link, *, numbered: bool = False) -> None:
        """A connection is there and may join; `numbered`, its events have offsets."""
        self._present.add(connection_id)
        self._fanout.attach(connection_id, link, numbered=numbered)

    def park(self, connection_id: str) -> None:
        """The connection was cut off and may be back: what is said is kept for it."""
        self._present.discard(connection_id)
        self._parked[connection_id] = dict.fromkeys(
            record.key for record in self.registry.of_connection(connection_id)
        )
        self._fanout.park(connection_id)
        self._announce_departures(self.registry.lose(connection_id, self._clock.monotonic()))

    def resume(
        self, connection_id: str, principal: Principal, link: Link, offset: str | None
    ) -> bool:
        """It is back: it gets what it missed, and is where it was. False where that cannot be."""
        user_id = principal.user_id
        keys = self._parked.pop(connection_id)
        try:
            for org, session_id in keys:
                self.judge(principal, session_id)
                self.registry.open(org, session_id).presence.admit(user_id)
        except FloorcastError:
            return False
        if not self._fanout.resume(connection_id, link, offset):
            return False
        self._present.add(connection_id)
        for org, session_id in keys:
            joined = self.registry.join(connection_id, org, user_id, session_id, self._now_ms())
            # Told where its user was given up meanwhile; before that nobody has noticed anything.
            self._announce_arrival(joined, user_id)
        return True

    def is_in(self, connection_id: str, org: str, session_id: str) -> bool:
        """Whether a connection is in a session."""
        record = self.registry.get(org, session_id)
        return record is not None and record.presence.user_of(connection_id) is not None

    async def exit(self, connection_id: str, *, deliberate: bool) -> None:
        """The connection has ended; one that was cut off has time to come back."""
        self._present.discard(connection_id)
        self._parked.pop(connection_id, None)
        now = self._clock.monotonic()
        lefts = (self.registry.leave_all if deliberate else self.registry.lose)(connection_id, now)
        emptied = self._fanout.detach(connection_id)
        self._announce_departures(lefts)
        for name in emptied:
            await self._following.release(name)

    def judge(self, principal: Principal, session_id: str) -> None:
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
        self.judge(principal, session_id)
        encode_within(metadata or {}, self._config.metadata_bytes)
        org, user_id = principal.org, principal.user_id
        name = session_channel(org, session_id)
        seen = None if since is None else Place(since.epoch, since.seq)
        channel, missed = await self._following.follow(
            name, lambda head, latest: self._look(session_id, head), seen
        )
        try:
            # From here on nothing waits: what is said now comes after the answer.
            if connection_id not in self._present:
                raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
            now_ms = self._now_ms()
            joined = self.registry.join(
                connection_id, org, user_id, session_id, now_ms, metadata=metadata
            )
        except BaseException:
            await self._following.release(name)
            raise
        if since is None and self._fanout.listens(connection_id, channel):
            # It is in already: to begin at the head would lose what it is still owed.
            self._fanout.flush_channel(channel)
        else:
            self._fanout.listen(connection_id, channel, 0)
        self._announce_arrival(joined, user_id)
        messages = None if seen is None else _up_to_now(channel, seen, missed)
        self.recovered += messages is not None
        return {
            "ok": True,
            "session_id": session_id,
            **self._who(joined.record),
            "epoch": channel.view.position.epoch,
            # What was sent until now; who lags gets the rest after this answer.
            "seq": self._fanout.standing(connection_id, channel)[1],
            "recovered": messages is not None,
            "messages": message_bodies(channel, messages or ()),
            "metadata": dict(joined.record.metadata),
        }

    async def leave(self, connection_id: str, principal: Principal, session_id: str) -> Reply:
        """Go out of a session."""
        now = self._clock.monotonic()
        record = self.registry.joined(connection_id, principal.org, session_id)
        departure = self.registry.leave(connection_id, principal.org, session_id, now)
        await self._part(record, departure)
        return {"ok": True}

    async def kick(self, principal: Principal, session_id: str, user_id: str) -> Reply:
        """Send a user out of a session, on every device."""
        principal.require(Scope.SESSION_MODERATE)
        record = self.registry.open(principal.org, session_id)
        now = self._clock.monotonic()
        departure = self.registry.kick(principal.org, session_id, user_id, now)
        if departure is None:
            raise RequestError(ErrorCode.SESSION_NOT_JOINED, "the user is not in the session")
        channel = self._fanout.channel(session_channel(*record.key))
        if channel is not None:
            # What was said before comes before the news that it hears no more.
            self._fanout.flush_channel(channel)
        event = session_event("session_closed", record, self._now_ms(), reason="kicked")
        for connection_id in departure.connections:
            self._fanout.tell_one(connection_id, event)
            # Whoever was sent away comes back as somebody new.
            self._tickets.forget(connection_id)
        await self._part(record, departure)
        for connection_id in self._tickets.parked_of((principal.org, user_id)):
            if record.key in self._parked[connection_id]:
                self._tickets.forget(connection_id)
                await self.exit(connection_id, deliberate=True)
        return {"ok": True, "connections": len(departure.connections)}

    async def close(self, principal: Principal, session_id: str) -> Reply:
        """End a session for everybody."""
        principal.require(Scope.SESSION_MODERATE)
        record = self.registry.open(principal.org, session_id)
        name = session_channel(principal.org, session_id)
        channel = self._fanout.channel(name)
        if channel is not None:
            # What was said before comes before the news that no more will be.
            self._fanout.flush_channel(channel)
        event = session_event("session_closed", record, self._now_ms(), reason="closed")
        connections = self.registry.close(principal.org, session_id, self._clock.monotonic())
        away = [each for each, keys in self._parked.items() if record.key in keys]
        for connection_id in away:
            del self._parked[connection_id][record.key]
        for connection_id in (*connections, *away):
            self._fanout.tell_one(connection_id, event)
        await self._silence(name, (*connections, *away))
        return {"ok": True, "connections": len(connections)}

    def participants(self, principal: Principal, session_id: str) -> Reply:
        """Who is there; in a session that nobody has made, nobody is."""
        self.judge(principal, session_id)
        record = self.registry.get(principal.org, session_id)
        if record is None:
            return {"ok": True, "participant_count": 0, "participants": []}
        return {"ok": True, **self._who(record)}

    # --- as time goes by

    async def sweep(self) -> None:
        """Announce who did not come back, and forget the sessions whose time is over."""
        now = self._clock.monotonic()
        self._announce_departures(self.registry.departed(now))
        for record in self.registry.due(now):
            await self._broker.forget(session_channel(*record.key))

    # --- inside

    async def _part(self, record: SessionRecord, departure: Departure) -> None:
        await self._silence(session_channel(*record.key), departure.connections)
        self._announce_departures([Left(record, departure)])

    async def _silence(self, name: str, connections: Iterable[str]) -> None:
        channel = self._fanout.channel(name)
        if channel is not None:
            # Who goes was there when this was said.
            self._fanout.flush_channel(channel)
            for connection_id in connections:
                self._fanout.unlisten(connection_id, channel)
            await self._following.release(name)

    def _announce_departures(self, lefts: Iterable[Left]) -> None:
        for left in lefts:
            departure = left.departure
            if departure.announce:
                count = departure.participant_count
                self._announce("user_left", left.record, departure.user_id, count)

    def _announce_arrival(self, joined: Joined, user_id: str) -> None:
        arrival = joined.arrival
        if arrival.announce:
            self._announce("user_joined", joined.record, user_id, arrival.participant_count)

    def _announce(self, event: str, record: SessionRecord, user_id: str, count: int) -> None:
        """Tell everybody but the user whom it is about, who knows."""
        channel = self._fanout.channel(session_channel(*record.key))
        if channel is not None:
            told = session_event(
                event, record, self._now_ms(), user_id=user_id, participant_count=count
            )
            mine = record.presence.connections_of(user_id)
            self._fanout.tell(channel, told, skip=mine[0] if mine else None)

    def _look(self, session_id: str, head: Place) -> SessionView:
        return SessionView(
            session_id,
            head,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
        )

    def _who(self, record: SessionRecord) -> dict[str, object]:
        return {
            "participant_count": record.presence.participant_count,
            "participants": [member.body() for member in record.presence.members()],
        }

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


def _up_to_now(channel: Channel, seen: Place, missed: list[Entry] | None) -> list[Entry] | None:
    """What the broker told, and what has come here while it was asked."""
    view = channel.view
    assert isinstance(view, SessionView)
    head = view.position
    if missed is None or seen.epoch != head.epoch or seen.seq > head.seq:
        return None
    known = [entry for entry in missed if entry.position.seq <= head.seq]
    rest = view.since(known[-1].position.seq if known else seen.seq)
    return None if rest is None else known + rest
