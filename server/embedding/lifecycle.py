"""Tells the application's handlers who connects, disconnects, comes online, joins and leaves."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from inspect import iscoroutine
from typing import Any, TypeVar

from server.access import Principal
from server.core.counters import Counters
from server.core.disconnects import DisconnectReason
from server.core.occupancy.subjects import OccupancyChange, SubjectKind
from server.core.sessions.events import SessionEvent, SessionEventKind
from server.core.sessions.notices import Notice
from server.services import FeedEvent
from server.sockets import JoinedClient
from server.tasks import TaskOwner, cancel_and_wait

logger = logging.getLogger(__name__)

_MAX_WAITING = 10_000
_MAX_SECONDS = 10.0
_STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """A client of one namespace; `reason` says why it disconnected, None if it connected."""

    connection_id: str
    namespace: str
    principal: Principal
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class UserEvent:
    """A user, online over all nodes or not."""

    org: str
    user_id: str


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """A user in a session, and how many users are in it now."""

    org: str
    session_id: str
    user_id: str
    participant_count: int


@dataclass(frozen=True, slots=True)
class OccupiedSession:
    """A session, with members over all nodes or without."""

    org: str
    session_id: str


@dataclass(frozen=True, slots=True)
class OccupiedTopic:
    """A topic, with subscribers over all nodes or without; a private one has an owner."""

    topic: str
    org: str = ""
    user_id: str = ""


@dataclass(frozen=True, slots=True)
class ExpiredNotice:
    """A critical notice that no device has acknowledged in time."""

    org: str
    user_id: str
    notice_id: str
    event: str


Event = TypeVar("Event")
Handle = Callable[[Event], Coroutine[Any, Any, None] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handlers:
    """The application's handlers, sync or async; each is optional.

    They are called one after the other, in the order of the events, and delay no client. An
    exception is logged. `user_online` to `topic_vacated` are called once over all nodes, on the
    node that notices: a user, session or topic is vacated once nobody has used it, on any node,
    for the grace time. `joined` and `left` are called on each node with members of the session,
    `notice_expired` on each node.
    """

    connected: Handle[ClientEvent] | None = None
    disconnected: Handle[ClientEvent] | None = None
    user_online: Handle[UserEvent] | None = None
    user_offline: Handle[UserEvent] | None = None
    session_occupied: Handle[OccupiedSession] | None = None
    session_vacated: Handle[OccupiedSession] | None = None
    topic_occupied: Handle[OccupiedTopic] | None = None
    topic_vacated: Handle[OccupiedTopic] | None = None
    joined: Handle[MemberEvent] | None = None
    left: Handle[MemberEvent] | None = None
    feed_live: Handle[FeedEvent] | None = None
    feed_stale: Handle[FeedEvent] | None = None
    notice_expired: Handle[ExpiredNotice] | None = None


class Lifecycle:
    """Calls the handlers in a task of its own."""

    def __init__(
        self,
        handlers: Handlers,
        counters: Counters,
        tasks: TaskOwner,
    ) -> None:
        self._handlers = handlers
        self._counters = counters
        self._tasks = tasks
        self._waiting: asyncio.Queue[Callable[[], Coroutine[Any, Any, None] | None]]
        self._waiting = asyncio.Queue(_MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to call the handlers."""
        self._task = self._tasks.keep(self._run, "floorcast-lifecycle")

    async def stop(self) -> None:
        """Call the handlers of the events until now, within a time limit; call none afterwards."""
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._waiting.join()
        except TimeoutError:
            logger.warning("lifecycle handlers did not finish", extra=self._backlog())
        if self._task is not None:
            await cancel_and_wait(self._task)

    def client_connected(self, client: JoinedClient, *, resumed: bool) -> None:
        """A client has joined a namespace, or resumed its connection there."""
        event = ClientEvent(client.connection_id, client.namespace, client.principal)
        self._emit(self._handlers.connected, event)

    def client_disconnected(self, client: JoinedClient, reason: DisconnectReason) -> None:
        """A client has left a namespace, or has lost its connection; it may resume it."""
        event = ClientEvent(client.connection_id, client.namespace, client.principal, reason.code)
        self._emit(self._handlers.disconnected, event)

    def on_change(self, change: OccupancyChange) -> None:
        """A user, session or topic is in use, or no longer."""
        handlers, subject = self._handlers, change.subject
        match subject.kind:
            case SubjectKind.USER:
                user = UserEvent(subject.org, subject.name)
                self._emit(handlers.user_online if change.occupied else handlers.user_offline, user)
            case SubjectKind.SESSION:
                session = OccupiedSession(subject.org, subject.name)
                self._emit(
                    handlers.session_occupied if change.occupied else handlers.session_vacated,
                    session,
                )
            case SubjectKind.TOPIC:
                topic = OccupiedTopic(subject.name, subject.org, subject.owner)
                self._emit(
                    handlers.topic_occupied if change.occupied else handlers.topic_vacated, topic
                )

    def on_notice_expired(self, notice: Notice) -> None:
        """A critical notice was not acknowledged in time."""
        event = ExpiredNotice(notice.org, notice.user_id, notice.id, notice.event)
        self._emit(self._handlers.notice_expired, event)

    def on_session_event(self, event: SessionEvent) -> None:
        """A session of this node has changed."""
        handle = None
        if event.kind is SessionEventKind.JOINED:
            handle = self._handlers.joined
        elif event.kind in (SessionEventKind.LEFT, SessionEventKind.KICKED):
            handle = self._handlers.left
        self._emit(handle, MemberEvent(*event.key, event.user_id, event.participant_count))

    def on_feed_event(self, event: FeedEvent) -> None:
        """A feed of this node publishes again, or no longer."""
        handle = self._handlers.feed_live if event.is_live else self._handlers.feed_stale
        self._emit(handle, event)

    def _emit(self, handle: Handle[Event] | None, event: Event) -> None:
        if handle is None:
            return
        try:
            self._waiting.put_nowait(lambda: handle(event))
        except asyncio.QueueFull:
            self._counters.add("lifecycle.dropped")
            logger.error("lifecycle handlers are too slow: dropped an event", extra=self._backlog())

    async def _run(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        while True:
            call = await self._waiting.get()
            try:
                result = call()
                if iscoroutine(result):
                    async with asyncio.timeout(_MAX_SECONDS):
                        await result
            except (Exception, asyncio.CancelledError):
                # The application's code may raise anything, a CancelledError included.
                if task.cancelling():
                    raise
                logger.exception("a lifecycle handler failed")
            finally:
                self._waiting.task_done()

    def _backlog(self) -> dict[str, int]:
        return {"waiting": self._waiting.qsize()}
