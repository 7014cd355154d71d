"""Joins sessions, and joins them again on every connection with what was missed."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping
from functools import partial
from types import TracebackType

from pydantic import ValidationError

from client_sdk.config import ClientConfig
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.namespaces import Namespace
from client_sdk.connection.packets import Packet, encode
from client_sdk.connection.wire import Wire
from client_sdk.connection.worker import Worker
from client_sdk.contract import Position
from client_sdk.contract.messages import Body
from client_sdk.contract.replies import Answer, JoinAnswer, read
from client_sdk.errors import ClientClosed, FloorcastError, SessionError, may_pass
from client_sdk.models import SESSION_EVENT_MODELS, SessionMessage
from client_sdk.reading.callbacks import OnItem
from client_sdk.reading.readers import State
from client_sdk.sessions.notices import Notices
from client_sdk.sessions.session import Session
from client_sdk.stats import Counters

logger = logging.getLogger(__name__)


class _Closed(Body):
    """`session_closed`."""

    session_id: str
    reason: str = "closed"


class Joining:
    """What `join` gives: `await` it for the session, or use it with `async with`."""

    def __init__(self, enter: Callable[[], Awaitable[Session]]) -> None:
        self._enter = enter
        self._session: Session | None = None

    def __await__(self) -> Generator[object, None, Session]:
        return self._enter().__await__()

    async def __aenter__(self) -> Session:
        self._session = await self._enter()
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
        self._all: dict[str, Session] = {}
        self._metadata: dict[str, Mapping[str, object]] = {}
        # Joined on this connection after nobody wanted them any more.
        self._unwanted: set[str] = set()
        self._worker = Worker("sessions", namespace, self._round)
        self._notices = Notices(namespace.name)
        namespace.on_event = self._on_event
        namespace.on_join = self._on_join
        namespace.on_loss = self._on_loss
        namespace.on_failure = self._on_failure

    def join(
        self,
        session_id: str,
        *,
        since: Position | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> Joining:
        """Come into a session; the first to come makes it, and may describe it.

        `since` is a position of an earlier visit: its messages are read from there.
        """
        return Joining(partial(self._enter, session_id, since, metadata))

    def on_notification(self, callback: OnItem) -> Callable[[], None]:
        """Call a function, plain or async, for each notification; what it returns ends that.

        A critical one counts as read once the function has returned without an error.
        """
        self._namespace.want()
        return self._notices.watch(callback)

    async def _enter(
        self, session_id: str, since: Position | None, metadata: Mapping[str, object] | None
    ) -> Session:
        """Wait until it is joined; raises why it cannot be."""
        if self._namespace.gate.error is not None:
            raise self._namespace.gate.error.again()
        session = self._all.get(session_id)
        if session is None:
            session = Session(
                session_id, self._namespace, self, self._config, self._counters, self._clock
            )
            session.joined_at = since
            self._all[session_id] = session
            if metadata is not None:
                self._metadata[session_id] = metadata
        session.uses += 1
        self._namespace.want()
        self._worker.wake()
        try:
            await session.gate.passed()
        except BaseException:
            await self.leave(session)
            raise
        return session

    # --- for sessions

    def wake(self) -> None:
        """A session lacks something."""
        self._worker.wake()

    async def leave(self, session: Session) -> None:
        """A session is needed no more; the last who uses it leaves it."""
        session.uses -= 1
        if session.uses > 0:
            return
        joined = session.gate.is_open
        self._drop(session, SessionError("the session was left", code="session.not_joined"))
        if joined:
            await self._leave(session.id)
        await session.end_callbacks()

    async def _leave(self, session_id: str) -> None:
        try:
            body = encode({"session_id": session_id})
            await self._namespace.ask("leave", body, partial(read, Answer))
        except FloorcastError as error:
            # The connection went, and nobody will join again.
            logger.debug("could not leave a session", extra={"code": error.code})

    def _drop(self, session: Session, reason: FloorcastError, *, loud: bool = False) -> None:
        if self._all.get(session.id) is session:
            del self._all[session.id]
            self._metadata.pop(session.id, None)
        session.end(reason if loud else None, reason)

    # --- what comes

    def _on_event(self, wire: Wire, packet: Packet) -> None:
        try:
            if packet.event == "message":
                self._on_message(packet.body)
            elif packet.event == "notification":
                self._notices.take(wire, packet)
            elif packet.event == "session_closed":
                self._on_closed(_Closed.model_validate_json(packet.body))
            elif packet.event in SESSION_EVENT_MODELS:
                event = SESSION_EVENT_MODELS[packet.event].model_validate_json(packet.body)
                session = self._all.get(event.session_id)
                if session is not None:
                    session.happened(event)
        except ValidationError:
            self._counters.malformed += 1
            logger.warning("an event could not be read", extra={"event": packet.event})

    def _on_message(self, body: str) -> None:
        message = SessionMessage.model_validate_json(body)
        message.timed_by(self._clock)
        self._counters.received += 1
        self._counters.latencies.add(message.age * 1000)
        session = self._all.get(message.session_id)
        if session is not None and not session.subject.hear(message):
            self._worker.wake()

    def _on_closed(self, closed: _Closed) -> None:
        session = self._all.get(closed.session_id)
        if session is None:
            return
        if closed.reason == "kicked":
            error = SessionError(
                "a moderator sent you out",
                code="session.not_joined",
                details={"reason": closed.reason},
            )
        else:
            error = SessionError("the session was closed", code="session.closed")
        self._drop(session, error, loud=True)

    def _on_join(self) -> None:
        if self._all:
            self._worker.wake()

    def _on_loss(self) -> None:
        self._unwanted.clear()
        for session in self._all.values():
            session.gate.close()
            session.subject.lose()

    def _on_failure(self, error: FloorcastError) -> None:
        for session in tuple(self._all.values()):
            self._drop(session, error, loud=not isinstance(error, ClientClosed))

    async def close(self) -> None:
        """End what runs for it."""
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._notices.close)
            stack.push_async_callback(self._worker.close)
            for session in self._all.values():
                stack.push_async_callback(session.end_callbacks)

    # --- what is asked

    async def _round(self) -> None:
        unwanted, self._unwanted = self._unwanted - self._all.keys(), set()
        for session_id in unwanted:
            await self._leave(session_id)
        for session in tuple(self._all.values()):
            if session.subject.lacks:
                await self._join(session)

    async def _join(self, session: Session) -> None:
        request: dict[str, object] = {"session_id": session.id}
        position = session.subject.ask()
        if position is not None:
            request["since"] = position
        if session.id in self._metadata:
            request["metadata"] = self._metadata[session.id]
        try:
            await self._namespace.ask("join", encode(request), partial(self._take, session))
        except FloorcastError as error:
            session.subject.unanswered()
            if may_pass(error):
                raise
            self._drop(session, error, loud=True)

    def _take(self, session: Session, text: str) -> None:
        """Take the answer before any message behind it."""
        answer = read(JoinAnswer, text)
        if self._all.get(session.id) is not session:
            self._unwanted.add(session.id)
            self._worker.wake()
            return
        for message in answer.messages:
            message.timed_by(self._clock)
        session.metadata = answer.metadata
        if session.joined_at is None:
            session.joined_at = Position(epoch=answer.epoch, seq=answer.seq)
        state = State(answer.epoch, answer.seq, answer.recovered, None, answer.messages)
        if not session.subject.answer(state, shared=False):
            self._worker.wake()
        session.gate.open()
