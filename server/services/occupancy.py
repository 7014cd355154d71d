"""What the clients of this node use, counted, and the events of it for the hooks."""

import itertools

from client_sdk.contract import HookType
from server.core.market.topics import Topic
from server.core.occupancy.events import HookEvent
from server.core.occupancy.subjects import Subject, SubjectKind
from server.core.sessions.notices import Notice
from server.core.sessions.records import SessionKey
from server.ports import Clock, HookQueue, Occupancy
from server.services.market.feed_supervisor import FeedEvent


class LocalOccupancy:
    """Tells occupancy about the first and the last use of each subject on this node."""

    def __init__(self, occupancy: Occupancy) -> None:
        self._occupancy = occupancy
        self._uses: dict[Subject, int] = {}

    def enter(self, subject: Subject, *, resumed: bool = False) -> None:
        """Count one more use of a subject."""
        uses = self._uses.get(subject, 0)
        self._uses[subject] = uses + 1
        if not uses:
            self._occupancy.enter(subject, resumed=resumed)

    def leave(self, subject: Subject) -> None:
        """Count one use less; you must have called `enter` for it."""
        self._uses[subject] -= 1
        if not self._uses[subject]:
            del self._uses[subject]
            self._occupancy.leave(subject)


class SessionUses:
    """Counts members as uses of their session."""

    def __init__(self, occupancy: LocalOccupancy) -> None:
        self._occupancy = occupancy

    def add(self, key: SessionKey) -> None:
        """A connection of this node is a member."""
        self._occupancy.enter(Subject(SubjectKind.SESSION, *key))

    def remove(self, key: SessionKey) -> None:
        """A connection of this node is no member any more."""
        self._occupancy.leave(Subject(SubjectKind.SESSION, *key))


class TopicUses:
    """Counts subscriptions as uses of their topic."""

    def __init__(self, occupancy: LocalOccupancy) -> None:
        self._occupancy = occupancy

    def add(self, topic: Topic, org: str, user_id: str) -> None:
        """A connection of this node is subscribed."""
        self._occupancy.enter(_topic_subject(topic, org, user_id))

    def remove(self, topic: Topic, org: str, user_id: str) -> None:
        """A connection of this node is not subscribed any more."""
        self._occupancy.leave(_topic_subject(topic, org, user_id))


def _topic_subject(topic: Topic, org: str, user_id: str) -> Subject:
    if topic.symbol is not None:
        return Subject(SubjectKind.TOPIC, "", topic.name)
    return Subject(SubjectKind.TOPIC, org, topic.name, user_id)


class HookEvents:
    """Queues events of this node for the hooks."""

    def __init__(self, queue: HookQueue, node: str, clock: Clock) -> None:
        self._queue = queue
        self._node = node
        self._clock = clock
        self._numbers = itertools.count(1)

    def append(self, kind: HookType, fields: dict[str, object], *, once: str = "") -> None:
        """Queue one event; `once` is a key by which other nodes name the same event."""
        ts_ms = int(self._clock.time() * 1000)
        event_id = f"{self._node}-{ts_ms}-{next(self._numbers)}"
        self._queue.append(HookEvent(event_id, kind, ts_ms, self._node, fields, once))

    def on_feed_event(self, event: FeedEvent) -> None:
        """A feed of this node publishes again, or no longer."""
        kind = HookType.FEED_LIVE if event.is_live else HookType.FEED_STALE
        fields: dict[str, object] = {
            "org": None,
            "feed": event.feed,
            "topic_count": event.topic_count,
        }
        if event.reason:
            fields["reason"] = event.reason
        self.append(kind, fields)

    def on_notice_expired(self, notice: Notice) -> None:
        """A critical notice was not acknowledged in time; every node notices that."""
        fields: dict[str, object] = {
            "org": notice.org,
            "user_id": notice.user_id,
            "notice_id": notice.id,
            "event": notice.event,
        }
        once = f"{len(notice.org)}:{notice.org}:{len(notice.user_id)}:{notice.user_id}:{notice.id}"
        self.append(HookType.NOTICE_EXPIRED, fields, once=once)
