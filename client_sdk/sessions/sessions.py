"""`client.session`: joins sessions, again on every connection, and fetches missed messages."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from types import TracebackType

from pydantic import ValidationError

from client_sdk.config import ClientConfig
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.namespaces import Namespace, Worker
from client_sdk.connection.packets import Packet, encode, parse_reply
from client_sdk.connection.websocket import Connection
from client_sdk.contract import Position, Reply, SessionClosed, SessionMessage
from client_sdk.contract.messages import SESSION_EVENT_MODELS
from client_sdk.contract.replies import JoinReply
from client_sdk.errors import (
    ClientClosed,
    FloorcastError,
    SessionError,
    error_from_code,
    is_retryable,
)
from client_sdk.reading.readers import TopicState
from client_sdk.reading.streams import OnItem
from client_sdk.sessions.notifications import Notifications
from client_sdk.sessions.session import Attendance, Session
from client_sdk.stats import Counters

logger = logging.getLogger(__name__)


class PendingJoin:
    """Returned by `join`: `await` it for the session, or use it with `async with`."""

    def __init__(self, join: Callable[[], Awaitable[Session]]) -> None:
        self._join = join
        self._session: Session | None = None

    def __await__(self) -> Generator[object, None, Session]:
        return self._join().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._join()
        return self._session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.leave()


class Sessions:
    """`client.session`."""

    def __init__(
        self, namespace: Namespace, config: ClientConfig, counters: Counters, clock: ServerClock
    ) -> None:
        self._namespace = namespace
        self._config = config
        self._counters = counters
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._metadata: dict[str, Mapping[str, object]] = {}
        # Joined on this connection after their last user had left.
        self._to_leave: set[str] = set()
        self._worker = Worker("sessions", namespace, self._sync)
        self._notifications = Notifications(namespace.name)
        namespace.on_event = self._on_event
        namespace.on_join = self._on_join
        namespace.on_lost = self._on_lost
        namespace.on_failure = self._on_failure

    def join(
        self,
        session_id: str,
        *,
        since: Position | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> PendingJoin:
        """Join a session, creating it if needed; `metadata` describes a new session.

        `since` is a position of an earlier visit: messages are read from there.
        """
        return PendingJoin(partial(self._join_and_wait, session_id, since, metadata))

    def on_notification(self, callback: OnItem) -> Callable[[], None]:
        """Call a function, plain or async, for each notification.

        A critical one is acknowledged once the function has returned without an error. Call the
        returned function to stop.
        """
        self._namespace.request_join()
        return self._notifications.add_callback(callback)

    async def _join_and_wait(
        self, session_id: str, since: Position | None, metadata: Mapping[str, object] | None
    ) -> Session:
        self._namespace.require_usable()
        session = self._sessions.get(session_id)
        if session is None:
            session = Session(
                session_id, self._namespace, self, self._config, self._counters, self._clock
            )
            session.join_position = since
            self._sessions[session_id] = session
            if metadata is not None:
                self._metadata[session_id] = metadata
        session.join_count += 1
        self._namespace.request_join()
        self._worker.wake()
        try:
            await session.gate.wait_open()
        except BaseException:
            await self.leave(session)
            raise
        return session

    # --- the owner of its sessions

    def wake(self) -> None:
        """Send the join requests that sessions need now."""
        self._worker.wake()

    async def leave(self, session: Session) -> None:
        """Drop one use of a session; the last one leaves it."""
        session.join_count -= 1
        if session.join_count > 0:
            return
        joined = session.gate.is_open
        self._end_session(session, SessionError("the session was left", code="session.not_joined"))
        if joined:
            await self._send_leave(session.id)
        await session.close_callbacks()

    async def _send_leave(self, session_id: str) -> None:
        try:
            body = encode({"session_id": session_id})
            await self._namespace.request("leave", body, partial(parse_reply, Reply))
        except FloorcastError as error:
            # The connection is lost, and the next one does not join this session.
            logger.debug("leaving a session failed", extra={"code": error.code})

    def _end_session(
        self, session: Session, reason: FloorcastError, *, notify_readers: bool = False
    ) -> None:
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
            self._metadata.pop(session.id, None)
        session.finish(reason if notify_readers else None, reason)

    # --- callbacks of the namespace

    def _on_event(self, connection: Connection, packet: Packet) -> None:
        try:
            if packet.event == "message":
                self._on_message(packet.body)
            elif packet.event == "notification":
                self._notifications.receive(connection, packet)
            elif packet.event == "session_closed":
                self._on_closed(SessionClosed.model_validate_json(packet.body))
            elif packet.event in SESSION_EVENT_MODELS:
                event = SESSION_EVENT_MODELS[packet.event].model_validate_json(packet.body)
                session = self._sessions.get(event.session_id)
                if session is not None:
                    session.dispatch(event)
        except ValidationError:
            self._counters.malformed += 1
            logger.warning("malformed event ignored", extra={"event": packet.event})

    def _on_message(self, body: str) -> None:
        message = SessionMessage.model_validate_json(body)
        message.use_clock(self._clock)
        self._counters.received += 1
        self._counters.latencies.add(message.age * 1000)
        session = self._sessions.get(message.session_id)
        if session is not None and not session.subscription.receive(message):
            self._worker.wake()

    def _on_closed(self, closed: SessionClosed) -> None:
        session = self._sessions.get(closed.session_id)
        if session is None:
            return
        error: FloorcastError
        if closed.reason == "kicked":
            error = SessionError(
                "a moderator removed you from the session",
                code="session.not_joined",
                details={"reason": closed.reason},
            )
        elif closed.reason == "forbidden":
            error = error_from_code("auth.forbidden", "the token no longer allows the session")
        else:
            error = SessionError("the session was closed", code="session.closed")
        self._end_session(session, error, notify_readers=True)

    def _on_join(self) -> None:
        if self._sessions:
            self._worker.wake()

    def _on_lost(self) -> None:
        self._to_leave.clear()
        for session in self._sessions.values():
            session.gate.close()
            session.subscription.on_disconnect()

    def _on_failure(self, error: FloorcastError) -> None:
        for session in tuple(self._sessions.values()):
            self._end_session(session, error, notify_readers=not isinstance(error, ClientClosed))

    async def close(self) -> None:
        """End its tasks."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._notifications.close)
            stack.push_async_callback(self._worker.close)
            for session in self._sessions.values():
                stack.push_async_callback(session.close_callbacks)

    # --- requests

    async def _sync(self) -> None:
        to_leave, self._to_leave = self._to_leave - self._sessions.keys(), set()
        for session_id in to_leave:
            await self._send_leave(session_id)
        for session in tuple(self._sessions.values()):
            if session.subscription.needs_sync:
                await self._send_join(session)

    async def _send_join(self, session: Session) -> None:
        request: dict[str, object] = {"session_id": session.id}
        position = session.subscription.begin_sync()
        if position is not None:
            request["since"] = position
        if session.id in self._metadata:
            request["metadata"] = self._metadata[session.id]
        try:
            unrecovered = await self._namespace.request(
                "join", encode(request), partial(self._apply_reply, session)
            )
            if unrecovered is not None and position is not None:
                await self._fetch_missed(session, unrecovered, position)
        except FloorcastError as error:
            session.subscription.abort_sync()
            if is_retryable(error):
                raise
            self._end_session(session, error, notify_readers=True)

    def _apply_reply(self, session: Session, text: str) -> TopicState[SessionMessage] | None:
        """Apply the reply before any message behind it.

        Returns the state if it lacks what the readers missed, and the history may have that.
        """
        reply = parse_reply(JoinReply, text)
        if self._sessions.get(session.id) is not session:
            self._to_leave.add(session.id)
            self._worker.wake()
            return None
        for message in reply.messages:
            message.use_clock(self._clock)
        session.metadata = reply.metadata
        session.apply_attendance(Attendance(reply.participant_count, reply.participants))
        if session.join_position is None:
            session.join_position = Position(epoch=reply.epoch, seq=reply.seq)
        session.gate.open()
        state = TopicState(reply.epoch, reply.seq, reply.recovered, None, reply.messages)
        if session.subscription.is_unrecovered(state):
            session.subscription.start_new_readers(state)
            return state
        if not session.subscription.apply_state(state, shared=False):
            self._worker.wake()
        return None

    async def _fetch_missed(
        self, session: Session, state: TopicState[SessionMessage], position: Position
    ) -> None:
        """Fetch from the history what is too much for a reply; the next request goes on there."""
        subscription = session.subscription
        missed = await session.fetch_after(position, state.seq)
        if not subscription.is_syncing:
            # The connection is lost, or the session has ended.
            return
        if missed:
            state = TopicState(state.epoch, missed[-1].seq, True, None, missed)
        subscription.apply_state(state, shared=False)
        # Messages that arrived meanwhile follow these.
        subscription.needs_sync = subscription.needs_sync or bool(missed)
        if subscription.needs_sync:
            self._worker.wake()
