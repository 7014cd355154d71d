"""Shared sessions: who comes, who goes, and who may send others away."""

from collections.abc import Mapping
from dataclasses import dataclass

from client_sdk.contract import ErrorCode, Position, Scope
from server.access import Principal
from server.core.errors import AccessError, FloorcastError, RequestError
from server.core.log.entries import Position as Place
from server.core.recovery.tickets import Tickets
from server.core.sessions.membership import Seats
from server.core.sessions.participants import Gathering
from server.core.sessions.records import SessionKey, kind_of, session_channel, session_closed
from server.delivery import Fanout
from server.delivery.channel import Channel
from server.delivery.session_state import SessionView
from server.ports import Assembly, Broker, Link
from server.services.node_subscriptions import Following, up_to_now
from server.services.sessions.encoding import Reply, encode_within, message_bodies
from server.services.sessions.local_presence import Attendance


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
        assembly: Assembly,
        following: Following,
        fanout: Fanout,
        tickets: Tickets,
    ) -> None:
        self._config = config
        self._broker = broker
        self._assembly = assembly
        self._following = following
        self._fanout = fanout
        self.seats = Seats(max_per_connection=config.max_per_connection)
        self.attendance = Attendance(self.seats, assembly, fanout, tickets)
        self.recovered = 0

    # --- coming and going

    def enter(
        self, connection_id: str, link: Link, *, numbered: bool = False, named: str | None = None
    ) -> None:
        """A connection is there and may join; `numbered`, its events have offsets.

        `named` is the session that it is to be in at once.
        """
        self.attendance.enter(connection_id, link, numbered=numbered, named=named)

    def park(self, connection_id: str) -> None:
        """The connection was cut off and may be back: what is said is kept for it."""
        self.attendance.park(connection_id)

    def goes_on(self, connection_id: str, principal: Principal, session_id: str | None) -> bool:
        """Whether this is where a client was that is back: another session is a new beginning."""
        return (
            session_id is None
            or session_id == self.attendance.named(connection_id)
            or (principal.org, session_id) in self.attendance.parked_in(connection_id)
        )

    def resume(
        self,
        connection_id: str,
        principal: Principal,
        link: Link,
        offset: str | None,
        first: bytes = b"",
    ) -> bool:
        """It is back: it gets what it missed, and is where it was. False where that cannot be."""
        try:
            for _, session_id in self.attendance.parked_in(connection_id):
                self.judge(principal, session_id)
        except FloorcastError:
            return False
        return self.attendance.resume(connection_id, principal.user_id, link, offset, first)

    def is_in(self, connection_id: str, org: str, session_id: str) -> bool:
        """Whether a connection is in a session."""
        return (connection_id, (org, session_id)) in self.seats

    async def exit(self, connection_id: str, *, deliberate: bool) -> None:
        """The connection has ended; one that was cut off has time to come back."""
        self.attendance.end(connection_id, lost=not deliberate)
        await self._tidy()

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
        key = (principal.org, session_id)
        name = session_channel(*key)
        seen = None if since is None else Place(since.epoch, since.seq)
        try:
            with self._following.holding(name):
                channel, missed = await self._following.follow(
                    name, lambda head, latest: self._look(session_id, head), seen
                )
                gathering = await self._come_in(
                    connection_id, principal.user_id, key, metadata, channel
                )
                # From here on nothing waits: what is said now comes after the answer.
                self._listen(connection_id, channel, again=seen is None)
        except BaseException:
            await self._following.release(name)
            raise
        messages = None if seen is None else up_to_now(channel.view, seen, missed)
        self.recovered += messages is not None
        return {
            "ok": True,
            "session_id": session_id,
            **gathering.body(),
            "epoch": channel.view.position.epoch,
            # What was sent until now; who lags gets the rest after this answer.
            "seq": self._fanout.standing(connection_id, channel)[1],
            "recovered": messages is not None,
            "messages": message_bodies(channel, messages or ()),
            "metadata": dict(gathering.metadata),
        }

    async def leave(self, connection_id: str, principal: Principal, session_id: str) -> Reply:
        """Go out of a session."""
        key = (principal.org, session_id)
        await self.require(connection_id, key)
        await self._assembly.leave(connection_id, key)
        self.attendance.vacate(connection_id, key)
        await self._tidy()
        return {"ok": True}

    async def kick(self, principal: Principal, session_id: str, user_id: str) -> Reply:
        """Send a user out of a session, on every device."""
        principal.require(Scope.SESSION_MODERATE)
        connections = await self._assembly.kick((principal.org, session_id), user_id)
        await self._tidy()
        return {"ok": True, "connections": connections}

    async def close(self, principal: Principal, session_id: str) -> Reply:
        """End a session for everybody."""
        principal.require(Scope.SESSION_MODERATE)
        connections = await self._assembly.close((principal.org, session_id))
        await self._tidy()
        return {"ok": True, "connections": connections}

    async def participants(self, principal: Principal, session_id: str) -> Reply:
        """Who is there; in a session that nobody has made, nobody is."""
        self.judge(principal, session_id)
        gathering = await self._assembly.who((principal.org, session_id))
        return {"ok": True, **(gathering or Gathering(0, ())).body()}

    async def require(self, connection_id: str, key: SessionKey) -> None:
        """Refuse a connection that is not in a session, and say why."""
        if (connection_id, key) in self.seats:
            return
        gathering = await self._assembly.who(key)
        if gathering is not None and gathering.closed:
            raise session_closed()
        raise RequestError(ErrorCode.SESSION_NOT_JOINED, "this connection is not in the session")

    # --- as time goes by

    async def sweep(self) -> None:
        """Give up who did not come back, and forget the sessions whose time is over."""
        over = await self._assembly.sweep()
        await self._tidy()
        for key in over:
            await self._broker.forget(session_channel(*key))

    # --- inside

    async def _come_in(
        self,
        connection_id: str,
        user_id: str,
        key: SessionKey,
        metadata: Mapping[str, object] | None,
        channel: Channel,
    ) -> Gathering:
        if not self.attendance.is_present(connection_id):
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
        self.seats.admit(connection_id, key)
        with self.attendance.arriving(connection_id, key) as news:
            gathering = await self._assembly.join(connection_id, user_id, key, metadata)
        gathering = gathering.after(news, user_id)
        # What waits may find the connection broken, and end it.
        self._fanout.flush_channel(channel)
        if not self.attendance.is_present(connection_id):
            # What was said when it ended may have come to be before this has let it in. Its user
            # may have been waited for, and is again.
            self._assembly.depart(connection_id, key, lost=True)
            raise RequestError(ErrorCode.REQUEST_INVALID, "the connection has ended")
        self.seats.take(connection_id, user_id, key, gathering.revision)
        return gathering

    def _listen(self, connection_id: str, channel: Channel, *, again: bool) -> None:
        if again and self._fanout.listens(connection_id, channel):
            # It is in already: to begin at the head would lose what it is still owed.
            self._fanout.flush_channel(channel)
        else:
            self._fanout.listen(connection_id, channel, 0)

    async def _tidy(self) -> None:
        """Follow no session any more that nobody here is in."""
        emptied = self.attendance.emptied
        while emptied:
            name = emptied.pop()
            # Who is opening it lets it go again; a tick must not wait for that.
            if self._fanout.channel(name) is not None:
                await self._following.release(name)

    def _look(self, session_id: str, head: Place) -> SessionView:
        return SessionView(
            session_id,
            head,
            max_messages=self._config.backlog_messages,
            max_bytes=self._config.backlog_bytes,
        )
