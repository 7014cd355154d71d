"""One shared session: what is said in it, who is there, and what can be said."""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Protocol, Self
from weakref import WeakSet

from client_sdk.config import ClientConfig
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.namespaces import Gate, Namespace
from client_sdk.connection.packets import encode
from client_sdk.contract import Position
from client_sdk.contract.replies import (
    HistoryReply,
    ModerationReply,
    ParticipantsReply,
    Reply,
    ReplyT,
    SendReply,
    parse_reply,
)
from client_sdk.errors import (
    BufferFull,
    FloorcastError,
    LimitExceeded,
    NotConnected,
    SendTimeout,
    is_retryable,
)
from client_sdk.models import Attendance, Gap, Sent, SessionEvent, SessionMessage
from client_sdk.reading.callbacks import Callback, Callbacks, OnItem
from client_sdk.reading.gaps import Continuity
from client_sdk.reading.readers import Reader
from client_sdk.reading.topic_subscription import TopicSubscription
from client_sdk.stats import Counters
from client_sdk.streams import MessageStream

# Of the moment: who does not look for so long has missed the oldest.
_MAX_EVENTS = 1000


class SessionOwner(Protocol):
    """Who keeps a session joined."""

    def wake(self) -> None:
        """A session lacks something."""

    async def leave(self, session: "Session") -> None:
        """A session is needed no more."""


class EventStream:
    """Joins, leaves and signals as they come; what nobody looked at for long is dropped."""

    def __init__(self, release: Callable[["EventStream"], None]) -> None:
        self._release = release
        self._events: deque[SessionEvent] = deque(maxlen=_MAX_EVENTS)
        self._changed = asyncio.Event()
        self._ended = False

    def put(self, event: SessionEvent) -> None:
        """Something happened."""
        self._events.append(event)
        self._changed.set()

    def close(self) -> None:
        """End it."""
        self._ended = True
        self._changed.set()
        self._release(self)

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionEvent:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._events.popleft()


class Session:
    """Joined until it is left; after a lost connection it is joined again by itself."""

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
        # Where it stood when it was joined: messages are read from there.
        self.join_position: Position | None = None
        self._namespace = namespace
        self._owner = owner
        self._config = config
        self._counters = counters
        self._clock = clock
        self._pending_count = 0
        self._callbacks = Callbacks()
        # One that nobody holds any more ends by that.
        self._events: WeakSet[EventStream] = WeakSet()

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    # --- what is said

    def messages(self, since: Position | None = None) -> MessageStream[SessionMessage | Gap]:
        """Every message since the session was joined, or since a position; in order.

        A slow reader misses nothing that is still in the history, and gets a `Gap` for the rest.
        """
        if self.gate.error is not None:
            raise self.gate.error.clone()
        listener: Reader[SessionMessage] = Reader(
            self._config.buffer_messages, self._counters, on_space=self._fetch_more
        )
        self.subscription.add(listener, since or self.join_position)
        self._owner.wake()
        return MessageStream(listener, self.subscription.remove)

    def on_message(self, callback: OnItem) -> Callback:
        """Call a function, plain or async, for each message or gap, one after the other."""
        return self._callbacks.start(self.messages(), callback)

    def events(self) -> EventStream:
        """Who comes, who goes, and signals, from now on."""
        stream = EventStream(self._events.discard)
        self._events.add(stream)
        return stream

    def on_event(self, callback: OnItem) -> Callback:
        """Call a function, plain or async, for each of them."""
        return self._callbacks.start(self.events(), callback)

    def _fetch_more(self, listener: Reader[SessionMessage]) -> None:
        if not self.subscription.is_syncing:
            self.subscription.needs_sync = True
            self._owner.wake()

    # --- what one can do

    async def send(self, data: Mapping[str, object], *, id: str | None = None) -> Sent:  # noqa: A002
        """Say something to everybody, oneself included; where it stands, once it is kept.

        Sent again under the same id after a lost connection, so that it is said once. Raises
        `SendTimeout` where no answer came in time: it may have been said.
        """
        body = self._body(data=data, id=id or uuid.uuid4().hex)
        if len(body.encode()) > self._config.batch_bytes:
            raise LimitExceeded(
                f"a message may have {self._config.batch_bytes} bytes", code="limit.payload"
            )
        answer = await self._request_with_retry("send", body, SendReply)
        return Sent(answer.id, Position(epoch=answer.epoch, seq=answer.seq), answer.ts)

    async def signal(self, data: Mapping[str, object]) -> None:
        """Tell the others something that holds for a moment; raises where we are offline."""
        await self._request("signal", self._body(data=data), Reply)

    async def participants(self) -> Attendance:
        """Who is here now."""
        answer = await self._request_with_retry("participants", self._body(), ParticipantsReply)
        return Attendance(answer.participant_count, answer.participants)

    async def history(
        self, *, before_seq: int | None = None, limit: int = 100
    ) -> tuple[SessionMessage, ...]:
        """The last messages, or those before one that is known."""
        body = self._body(limit=limit)
        if before_seq is not None:
            body = self._body(limit=limit, before_seq=before_seq)
        messages = (await self._request_with_retry("history", body, HistoryReply)).messages
        for message in messages:
            message.use_clock(self._clock)
        return messages

    async def kick(self, user_id: str) -> int:
        """Send a user out, on every device; how many connections that were."""
        return (
            await self._request("kick", self._body(user_id=user_id), ModerationReply)
        ).connections

    async def close(self) -> int:
        """End the session for everybody; how many connections that were."""
        return (await self._request("close", self._body(), ModerationReply)).connections

    async def leave(self) -> None:
        """Go; the others see it at once."""
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

    # --- asking

    def _body(self, **fields: object) -> str:
        return encode({"session_id": self.id, **fields})

    async def _request(self, event: str, body: str, model: type[ReplyT]) -> ReplyT:
        if self.gate.error is not None:
            raise self.gate.error.clone()
        if not self.gate.is_open:
            raise NotConnected("the session is not joined now")
        return await self._namespace.request(event, body, partial(parse_reply, model))

    async def _request_with_retry(self, event: str, body: str, model: type[ReplyT]) -> ReplyT:
        """Ask on this connection or the next, for a bounded time."""
        config = self._config
        if self._pending_count >= config.pending_messages:
            raise BufferFull(f"{config.pending_messages} requests wait already")
        self._pending_count += 1
        try:
            async with asyncio.timeout(config.send_seconds):
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
            raise SendTimeout(f"no answer within {config.send_seconds:g} s") from None
        finally:
            self._pending_count -= 1

    # --- what its owner tells

    def dispatch(self, event: SessionEvent) -> None:
        """Somebody came or went, or signals."""
        for stream in tuple(self._events):
            stream.put(event)

    def end(self, error: FloorcastError | None, reason: FloorcastError) -> None:
        """It is over: who reads comes to the end or gets `error`, who sends gets `reason`."""
        self.gate.fail(reason)
        for listener in tuple(self.subscription.readers):
            listener.end(None if error is None else error.clone())
        for stream in tuple(self._events):
            stream.close()

    async def close_callbacks(self) -> None:
        """End the tasks that call the user's functions."""
        await self._callbacks.close()
