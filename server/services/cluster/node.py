"""Answers questions about this node: its connections, its subscribers and its figures."""

import heapq
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator

import orjson

from server.core.connections import ConnectionManager, ConnectionRecord
from server.core.errors import Dismissal, FloorcastError
from server.core.limits.events import EventLimits
from server.core.market.instruments import matches
from server.core.market.subscriptions import Subscriptions
from server.core.sessions.membership import Memberships
from server.delivery import Hub
from server.ports import Clock
from server.services.cluster.questions import (
    CountRevoked,
    CountSubscribers,
    DescribeNode,
    DisconnectConnection,
    DisconnectUser,
    FindConnection,
    FindConnections,
    FindDemand,
    FindTopics,
    MarkFeed,
    decode_question,
)
from server.services.cluster.records import (
    ConnectionInfo,
    FeedInfo,
    NodeDemand,
    NodeInfo,
    SubscriptionInfo,
    TopicInfo,
)
from server.services.market.demand import LocalDemand
from server.services.market.feed_supervisor import FeedState, FeedSupervisor
from server.services.market.freshness import Freshness
from server.services.market.topic_subscriptions import state_of
from server.services.statistics import Statistics, memory_bytes


class NodeAnswers:
    """What this node knows and can do for the other ones."""

    def __init__(
        self,
        node: str,
        version: str,
        registry: ConnectionManager,
        subscriptions: Subscriptions,
        demand: LocalDemand,
        memberships: Memberships,
        hub: Hub,
        freshness: Freshness,
        event_limits: EventLimits,
        statistics: Statistics,
        clock: Clock,
        is_ready: Callable[[], bool],
        feeds: Collection[FeedSupervisor] = (),
    ) -> None:
        self._node = node
        self._version = version
        self._registry = registry
        self._subscriptions = subscriptions
        self._demand = demand
        self._memberships = memberships
        self._hub = hub
        self._freshness = freshness
        self._event_limits = event_limits
        self._statistics = statistics
        self._clock = clock
        self._is_ready = is_ready
        self._feeds = feeds
        self._started_at_ms = self._now_ms()

    async def answer(self, message: bytes) -> bytes:
        """Answer an encoded question; raises `ValidationError` for an unknown one."""
        match decode_question(message):
            case FindConnections() as question:
                return orjson.dumps(self.find_connections(question))
            case FindConnection(org, connection_id):
                record = self._registry.get(connection_id)
                known = record is not None and record.org == org
                return orjson.dumps([self._describe(record)] if record and known else [])
            case CountSubscribers(org, channel):
                return orjson.dumps(self._subscriptions.count_in_org(org, channel))
            case FindTopics() as question:
                return orjson.dumps(self.find_topics(question))
            case DisconnectConnection() as question:
                return orjson.dumps(self.disconnect_connection(question))
            case DisconnectUser() as question:
                return orjson.dumps(self.disconnect(question))
            case CountRevoked(revocation):
                return orjson.dumps(sum(map(revocation.matches, self._registry.connections())))
            case DescribeNode(org):
                return orjson.dumps(self.describe(org))
            case MarkFeed() as question:
                self._mark_feed(question)
                return orjson.dumps(0)
            case FindDemand(known):
                return orjson.dumps(self._find_demand(known.get(self._node)))

    def find_connections(self, question: FindConnections) -> list[ConnectionInfo]:
        """The connections of this node that match, up to the limit."""
        found = heapq.nsmallest(
            question.limit,
            (
                each
                for each in self._candidates(question)
                if each.connection_id > question.after and self._matches(each, question)
            ),
            key=lambda each: each.connection_id,
        )
        return [self._describe(each) for each in found]

    def find_topics(self, question: FindTopics) -> list[TopicInfo]:
        """The topics of this node that match, up to the limit."""
        names = heapq.nsmallest(
            question.limit,
            (
                topic.name
                for topic in self._subscriptions.public_topics()
                if topic.name > question.after and matches(question.match, topic.name)
            ),
        )
        return [each for name in names if (each := self._describe_topic(question.org, name))]

    def disconnect_connection(self, question: DisconnectConnection) -> int:
        """Disconnect one connection; returns 0 if this node has no such one."""
        record = self._registry.get(question.connection_id)
        if record is None or record.org != question.org:
            return 0
        error = Dismissal(question.code, question.message)
        self.close(record, error, reconnect=question.reconnect)
        return 1

    def disconnect(self, question: DisconnectUser) -> int:
        """Disconnect a user from this node; returns how many connections there were."""
        records = self._registry.connections_of(question.org, question.user_id)
        error = Dismissal(question.code, question.message)
        for each in records:
            self.close(each, error, reconnect=question.reconnect)
        return len(records)

    def close(self, record: ConnectionRecord, error: FloorcastError, *, reconnect: bool) -> None:
        """Disconnect one connection; a no-op if it has gone."""
        link = self._hub.link_of(record.connection_id)
        if link is not None:
            link.disconnect(error, reconnect=reconnect, namespace=record.namespace)

    def describe(self, org: str) -> NodeInfo:
        """This node, with the connections of an org."""
        users = self._registry.users(org)
        return NodeInfo(
            self._node,
            self._version,
            os.getpid(),
            self._started_at_ms,
            self._is_ready(),
            sum(len(self._registry.connections_of(org, each)) for each in users),
            len(users),
            self._statistics.snapshot(),
            self._statistics.refusals(),
            tuple(_describe_feed(each) for each in self._feeds if each.state is not FeedState.IDLE),
            memory_bytes(),
        )

    def _find_demand(self, known_version: int | None) -> NodeDemand:
        version, names = self._demand.names()
        return NodeDemand(self._node, version, None if version == known_version else list(names))

    def _mark_feed(self, question: MarkFeed) -> None:
        if question.node == self._node:
            # Its own supervisor has marked it.
            return
        feed = f"{question.node}/{question.feed}"
        if question.channels is None:
            self._freshness.set_feed_live(feed)
        else:
            self._freshness.set_feed_stale(feed, frozenset(question.channels))

    def _candidates(self, question: FindConnections) -> Iterable[ConnectionRecord]:
        """The connections of the org that can match, by the narrowest index."""
        org = question.org
        if question.user_id is not None:
            return self._registry.connections_of(org, question.user_id)
        if question.session_id is not None:
            return self._records(self._memberships.members_of((org, question.session_id)))
        return (
            record
            for user_id in self._registry.users(org)
            for record in self._registry.connections_of(org, user_id)
        )

    def _records(self, connection_ids: Iterable[str]) -> Iterator[ConnectionRecord]:
        for each in connection_ids:
            # A parked connection is a member, and is not registered.
            record = self._registry.get(each)
            if record is not None:
                yield record

    def _matches(self, record: ConnectionRecord, question: FindConnections) -> bool:
        connection_id = record.connection_id
        if question.topic is not None and not any(
            each.topic.name == question.topic
            for each in self._subscriptions.of_connection(connection_id)
        ):
            return False
        key = (record.org, question.session_id or "")
        return question.session_id is None or (connection_id, key) in self._memberships

    def _describe(self, record: ConnectionRecord) -> ConnectionInfo:
        connection_id = record.connection_id
        subscriptions = tuple(self._describe_subscriptions(connection_id))
        connected_ms = int(record.connected_at.timestamp() * 1000)
        merged, dropped = self._hub.merged_and_dropped(connection_id)
        link = self._hub.link_of(connection_id)
        return ConnectionInfo(
            connection_id,
            self._node,
            record.user_id,
            record.namespace,
            record.device_id,
            record.ip,
            connected_ms,
            self._last_activity_ms(connection_id, connected_ms),
            0 if link is None else link.buffered_bytes,
            sum(each.lag for each in subscriptions),
            merged,
            dropped,
            None if math.isinf(record.expires_at) else int(record.expires_at * 1000),
            subscriptions,
            tuple(session_id for _, session_id in self._memberships.of_connection(connection_id)),
        )

    def _describe_topic(self, org: str, name: str) -> TopicInfo | None:
        channel = self._hub.channel(name)
        if channel is None:
            return None
        state, since_ms = state_of(channel), channel.stale_since_ms
        return TopicInfo(
            name,
            self._subscriptions.count_in_org(org, name),
            state.feed_state(since_ms),
            state.position.epoch,
            state.position.seq,
            since_ms,
        )

    def _describe_subscriptions(self, connection_id: str) -> Iterator[SubscriptionInfo]:
        for each in self._subscriptions.of_connection(connection_id):
            channel = self._hub.channel(each.channel)
            if channel is None or connection_id not in self._hub:
                continue
            interval_ms, seq = self._hub.interval_and_seq(connection_id, channel)
            lag = max(0, channel.state.position.seq - seq)
            yield SubscriptionInfo(each.topic.name, interval_ms, seq, lag)

    def _last_activity_ms(self, connection_id: str, connected_ms: int) -> int:
        event_at = self._event_limits.last_event_at(connection_id)
        if event_at is None:
            return connected_ms
        ago_ms = int((self._clock.monotonic() - event_at) * 1000)
        return max(connected_ms, self._now_ms() - ago_ms)

    def _now_ms(self) -> int:
        return int(self._clock.time() * 1000)


def _describe_feed(feed: FeedSupervisor) -> FeedInfo:
    return FeedInfo(
        feed.name, feed.is_live, feed.publisher.published, feed.failures, feed.silent_seconds
    )
