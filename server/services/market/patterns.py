"""The patterns that connections are subscribed to, and the new topics that match them."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from client_sdk.contract import ErrorCode, Stream
from server.access import Principal
from server.core.errors import LimitError
from server.core.market.instruments import InstrumentTable
from server.core.market.patterns import TopicPattern
from server.core.market.topics import Topic

# Each new topic is compared with every pattern of its stream.
_MAX_PER_CONNECTION = 100
# After so many of them others get their turn.
_PATTERNS_PER_TURN = 1_000


@dataclass(slots=True, eq=False)
class PatternSubscription:
    """A connection's pattern, and the topics that it is subscribed to because of it."""

    connection_id: str
    principal: Principal
    name: str
    pattern: TopicPattern
    interval_ms: int
    topics: set[str] = field(default_factory=set)


class Patterns:
    """All patterns of this node. A new topic is compared with those of its stream only."""

    def __init__(self, table: InstrumentTable) -> None:
        self._table = table
        self._by_connection: dict[str, dict[str, PatternSubscription]] = {}
        self._by_stream: dict[Stream, dict[PatternSubscription, None]] = {
            stream: {} for stream in Stream if stream.per_symbol
        }
        # New topics, and the patterns of connections that are back.
        self._waiting: dict[Topic | PatternSubscription, None] = {}

    def of_connection(self, connection_id: str) -> tuple[PatternSubscription, ...]:
        """The patterns of a connection."""
        return tuple(self._by_connection.get(connection_id, {}).values())

    def add(
        self, connection_id: str, principal: Principal, name: str, interval_ms: int
    ) -> PatternSubscription:
        """Subscribe a connection to a pattern.

        Raises `RequestError` if it is none, and `LimitError` if the connection has too many.
        """
        pattern = TopicPattern.parse(name)
        known = self._by_connection.get(connection_id, {}).get(name)
        if known is not None:
            known.principal, known.interval_ms = principal, interval_ms
            return known
        if len(self._by_connection.get(connection_id, ())) >= _MAX_PER_CONNECTION:
            raise LimitError(
                ErrorCode.LIMIT_TOPICS,
                f"a connection may subscribe to at most {_MAX_PER_CONNECTION} patterns",
                details={"limit": _MAX_PER_CONNECTION},
            )
        added = PatternSubscription(connection_id, principal, name, pattern, interval_ms)
        self._by_connection.setdefault(connection_id, {})[name] = added
        self._by_stream[pattern.stream][added] = None
        return added

    def remove(self, connection_id: str, name: str) -> set[str]:
        """Unsubscribe from a pattern; returns the topics that no other pattern stands for."""
        patterns = self._by_connection.get(connection_id, {})
        removed = patterns.pop(name, None)
        if removed is None:
            return set()
        del self._by_stream[removed.pattern.stream][removed]
        if not patterns:
            del self._by_connection[connection_id]
        left = removed.topics
        for other in patterns.values():
            if other.pattern.view == removed.pattern.view:
                shared = {each for each in left if other.pattern.matches(Topic.parse(each))}
                other.topics |= shared
                left = left - shared
        return left

    def remove_connection(self, connection_id: str) -> None:
        """Forget the patterns of a connection; a no-op if it has none."""
        for each in self._by_connection.pop(connection_id, {}).values():
            del self._by_stream[each.pattern.stream][each]

    def is_current(self, subscription: PatternSubscription) -> bool:
        """Whether a connection is still subscribed to a pattern."""
        return subscription in self._by_stream[subscription.pattern.stream]

    def set_principal(self, connection_id: str, principal: Principal) -> None:
        """Apply a refreshed token."""
        for each in self.of_connection(connection_id):
            each.principal = principal

    def release(self, connection_id: str, topic: str) -> None:
        """Leave a topic out of the patterns: the connection names it itself."""
        for each in self.of_connection(connection_id):
            each.topics.discard(topic)

    async def matching(self, subscription: PatternSubscription) -> list[Topic]:
        """The topics that a pattern stands for now, within the token's symbols."""
        pattern, found = subscription.pattern, list[Topic]()
        for part in self._table.search(pattern.match):
            found += (
                pattern.topic(each.symbol)
                for each in part
                if pattern.stream in each.streams
                and subscription.principal.may_use_symbol(each.symbol)
            )
            await asyncio.sleep(0)
        return found

    def distinct(self) -> set[tuple[Stream, str]]:
        """The streams and patterns of symbols that any connection is subscribed to."""
        subscriptions = self._by_stream.values()
        return {
            (each.pattern.stream, each.pattern.match) for some in subscriptions for each in some
        }

    # --- new topics

    def on_topic(self, topic: Topic) -> None:
        """Let the connections whose patterns match a new topic wait for it."""
        if self._by_stream[topic.stream]:
            self._waiting[topic.source] = None

    def refresh(self, connection_id: str) -> None:
        """Let a connection wait for the topics that were new while it was away."""
        self._waiting.update(dict.fromkeys(self.of_connection(connection_id)))

    async def pop_waiting(self) -> AsyncIterator[tuple[PatternSubscription, Topic]]:
        """The topics to join now, and their patterns; others get their turn between them.

        If you stop early, give back what is left by `on_topic` and `refresh`.
        """
        for waiting in tuple(self._waiting):
            del self._waiting[waiting]
            if isinstance(waiting, PatternSubscription):
                topics = await self.matching(waiting) if self.is_current(waiting) else ()
                for topic in topics:
                    if topic.name not in waiting.topics:
                        yield waiting, topic
                continue
            assert waiting.symbol is not None
            for index, each in enumerate(tuple(self._by_stream[waiting.stream]), 1):
                if index % _PATTERNS_PER_TURN == 0:
                    await asyncio.sleep(0)
                if each.pattern.matches(waiting):
                    yield each, each.pattern.topic(waiting.symbol)
