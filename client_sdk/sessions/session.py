"""One shared session: its messages, events and participants, and requests to it."""

import asyncio
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Protocol, Self
from weakref import WeakSet

from client_sdk.config import ClientConfig
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.namespaces import Namespace
from client_sdk.connection.packets import ReplyT, encode, parse_reply
from client_sdk.connection.states import Gate
from client_sdk.contract import (
    Participant,
    Position,
    Reply,
    SessionEvent,
    SessionMessage,
    UserJoined,
    UserLeft,
)
from client_sdk.contract.replies import HistoryReply, ModerationReply, ParticipantsReply, SendReply
from client_sdk.errors import (
    BufferFull,
    FloorcastError,
    LimitExceeded,
    NotConnected,
    SendTimeout,
    is_retryable,
)
from client_sdk.reading.gaps import Continuity, Gap
from client_sdk.reading.readers import Reader
from client_sdk.reading.streams import Callback, Callbacks, MessageStream, OnItem
from client_sdk.reading.topic_subscription import TopicSubscription
from client_sdk.stats import Counters

# Events are transient: a stream that is not read drops the oldest.
_MAX_EVENTS = 1000
# Messages fetched from the history at once.
_PAGE_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class Sent:
    """A message that the session has stored."""

    id: str
    position: Position
    ts: int


@dataclass(frozen=True, slots=True)
class Attendance:
    """The users in a session; a user with several devices counts once."""

    participant_count: int
    participants: tuple[Participant, ...]


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """The users in a session, after some joined or left while the client was disconnected."""

    session_id: str
    participant_count: int
    participants: tuple[Participant, ...]


# What `events` yields: those of the server, and one of the client.
AnySessionEvent = SessionEvent | PresenceChanged


class SessionOwner(Protocol):
    """Keeps sessions joined."""

    def wake(self) -> None:
        """Send the join requests that sessions need now; must not block."""

    async def leave(self, session: "Session") -> None:
        """Drop one use of a session; the last one leaves it."""


class EventStream:
    """An async iterator of joins, leaves and signals; unread ones beyond 1,000 are dropped.

    After a lost connection it yields a `PresenceChanged` if others joined or left meanwhile.
    """

    def __init__(self, release: Callable[["EventStream"], None]) -> None:
        self._release = release
        self._events: deque[AnySessionEvent] = deque(maxlen=_MAX_EVENTS)
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, event: AnySessionEvent) -> None:
        """Add an event."""
        self._events.append(event)
        self._changed.set()

    def close(self) -> None:
        """End the iteration; unread events can still be read."""
        self._ended = True
        self._changed.set()
        self._release(self)

    async def aclose(self) -> None:
        """Same as `close`, for `contextlib.aclosing`."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnySessionEvent:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()


class Session:
    """Joined until `leave`, or the end of its `async with`; joined again after a reconnect."""

    def __init__(
        self,
        session_id: str,
        namespace: Namespace,
        owner: SessionOwner,
        config: ClientConfig,
        counters: Counters,
        clock: ServerClock,
    ) -> None:
        self.id = session_id
        self.subscription: TopicSubscription[SessionMessage] = TopicSubscription(
            session_id, Continuity.COMPLETE, counters
        )
        self.gate = Gate()
        self.metadata: Mapping[str, object] = {}
        self.join_count = 0
        # Where `messages` starts: the position at the first join, or the user's `since`.
        self.join_position: Position | None = None
        self._namespace = namespace
        self._owner = owner
        self._config = config
        self._counters = counters
        self._clock = clock
        # The participants after the last join and the events since; None before the first join.
        self._user_ids: set[str] | None = None
        self._pending_count = 0
        self._callbacks = Callbacks()
        # Weak: a dropped stream needs no events.
        self._events: WeakSet[EventStream] = WeakSet()

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    # --- reading

    def messages(self, since: Position | None = None) -> MessageStream[SessionMessage | Gap]:
        """Stream every message in order, since the session was joined or since a position.

        A slow reader misses nothing that is still in the history, and gets a `Gap` for the rest.
        """
        if self.gate.error is not None:
            raise self.gate.error.clone()
        reader: Reader[SessionMessage] = Reader(
            self._config.buffer_messages, self._counters, on_space=self._fetch_more
        )
        self.subscription.add(reader, since or self.join_position)
        self._owner.wake()
        return MessageStream(reader, self.subscription.remove)

    def on_message(self, callback: OnItem) -> Callback:
        """Call a function, plain or async, for each message or gap, one at a time."""
        return self._callbacks.start(self.messages(), callback)

    def events(self) -> EventStream:
        """Stream joins, leaves and signals from now on."""
        stream = EventStream(self._events.discard)
        self._events.add(stream)
        return stream

    def on_event(self, callback: OnItem) -> Callback:
        """Call a function, plain or async, for each event."""
        return self._callbacks.start(self.events(), callback)

    def _fetch_more(self, reader: Reader[SessionMessage]) -> None:
        if not self.subscription.is_syncing:
            self.subscription.needs_sync = True
            self._owner.wake()

    # --- requests

    async def send(
        self,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        timeout: float | None = None,
    ) -> Sent:
        """Send a message to everybody, this client included; returns its position.

        Retried under the same id after a lost connection, so the server stores it once. Raises
        `SendTimeout` without a reply within `timeout`, by default `send_seconds`: the message may
        have been stored.
        """
        body = self._body(data=data, id=id or uuid.uuid4().hex)
        if len(body.encode()) > self._config.batch_bytes:
            raise LimitExceeded(
                f"a message is limited to {self._config.batch_bytes} bytes", code="limit.payload"
            )
        reply = await self._request_with_retry("send", body, SendReply, timeout)
        return Sent(reply.id, Position(epoch=reply.epoch, seq=reply.seq), reply.ts)

    async def signal(self, data: Mapping[str, object]) -> None:
        """Send a transient event to the other participants; raises `NotConnected` if offline."""
        await self._request("signal", self._body(data=data), Reply)

    async def participants(self) -> Attendance:
        """The users in the session now."""
        reply = await self._request_with_retry("participants", self._body(), ParticipantsReply)
        return Attendance(reply.participant_count, reply.participants)

    async def history(
        self, *, before_seq: int | None = None, limit: int = 100
    ) -> tuple[SessionMessage, ...]:
        """The newest messages, or those before `before_seq`."""
        body = self._body(limit=limit)
        if before_seq is not None:
            body = self._body(limit=limit, before_seq=before_seq)
        messages = (await self._request_with_retry("history", body, HistoryReply)).messages
        for message in messages:
            message.use_clock(self._clock)
        return messages

    async def kick(self, user_id: str) -> int:
        """Remove a user on every device; returns the number of removed connections."""
        body = self._body(user_id=user_id)
        return (await self._request("kick", body, ModerationReply)).connections

    async def end(self) -> int:
        """End the session for everybody; returns the number of removed connections."""
        return (await self._request("close", self._body(), ModerationReply)).connections

    async def close(self) -> int:
        """The former name of `end`: to leave the session yourself, use `leave`."""
        warnings.warn(
            "Session.close() is now called end(); use leave() to leave the session yourself",
            DeprecationWarning,
            stacklevel=2,
        )
        return await self.end()

    async def leave(self) -> None:
        """Leave the session; the others see it at once."""
        await self._owner.leave(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.leave()

    def _body(self, **fields: object) -> str:
        return encode({"session_id": self.id, **fields})

    async def _request(self, event: str, body: str, model: type[ReplyT]) -> ReplyT:
        if self.gate.error is not None:
            raise self.gate.error.clone()
        if not self.gate.is_open:
            raise NotConnected("the session is not joined now")
        return await self._namespace.request(event, body, partial(parse_reply, model))

    async def _request_with_retry(
        self, event: str, body: str, model: type[ReplyT], timeout: float | None = None
    ) -> ReplyT:
        """Request on this connection or a later one; raises `SendTimeout` or `BufferFull`."""
        config = self._config
        if self._pending_count >= config.pending_messages:
            raise BufferFull(f"{config.pending_messages} requests wait already")
        self._pending_count += 1
        seconds = config.send_seconds if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self.gate.wait_open()
                    try:
                        return await self._request(event, body, model)
                    except FloorcastError as error:
                        if not is_retryable(error):
                            raise
                        if not isinstance(error, NotConnected | SendTimeout):
                            await asyncio.sleep((error.retry_after_ms or 1000) / 1000)
        except TimeoutError:
            raise SendTimeout(f"no reply within {seconds:g} s") from None
        finally:
            self._pending_count -= 1

    # --- called by the owner

    async def fetch_after(self, position: Position, head_seq: int) -> tuple[SessionMessage, ...]:
        """The first messages after a position, from the history; none if they are gone."""
        first, end = position.seq + 1, min(position.seq + _PAGE_MESSAGES, head_seq) + 1
        found: deque[SessionMessage] = deque()
        while end > first:
            body = self._body(before_seq=end, limit=end - first)
            parse = partial(parse_reply, HistoryReply)
            page = (await self._namespace.request("history", body, parse)).messages
            if not page or page[0].epoch != position.epoch or page[-1].seq != end - 1:
                return ()
            # A page may end early: it is bounded in bytes.
            found.extendleft(reversed(page))
            end = page[0].seq
        for message in found:
            message.use_clock(self._clock)
        return tuple(found)

    def apply_attendance(self, attendance: Attendance) -> None:
        """Take the users in the session after a join; report a change that was missed."""
        user_ids = {each.user_id for each in attendance.participants}
        if self._user_ids is not None and user_ids != self._user_ids:
            self.dispatch(
                PresenceChanged(self.id, attendance.participant_count, attendance.participants)
            )
        self._user_ids = user_ids

    def dispatch(self, event: AnySessionEvent) -> None:
        """Give an event to all event streams."""
        if self._user_ids is not None and isinstance(event, UserJoined):
            self._user_ids.add(event.user_id)
        elif self._user_ids is not None and isinstance(event, UserLeft):
            self._user_ids.discard(event.user_id)
        for stream in tuple(self._events):
            stream.put(event)

    def finish(self, error: FloorcastError | None, reason: FloorcastError) -> None:
        """Finish the session: iterators end, or raise `error` if given; requests raise `reason`."""
        self.gate.fail(reason)
        for reader in tuple(self.subscription.readers):
            reader.end(None if error is None else error.clone())
        for stream in tuple(self._events):
            stream.close()

    async def close_callbacks(self) -> None:
        """End the tasks of its callbacks."""
        await self._callbacks.close()
