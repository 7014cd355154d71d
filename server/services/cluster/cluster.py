"""Asks all nodes about connections, users and figures, and joins their answers."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from server.ports import Cluster
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
    Question,
    encode_question,
)
from server.services.cluster.records import ConnectionInfo, NodeDemand, NodeInfo, TopicInfo

logger = logging.getLogger(__name__)

T = TypeVar("T")

_CONNECTIONS: TypeAdapter[list[ConnectionInfo]] = TypeAdapter(list[ConnectionInfo])
_TOPICS: TypeAdapter[list[TopicInfo]] = TypeAdapter(list[TopicInfo])
_COUNT: TypeAdapter[int] = TypeAdapter(int)
_NODE: TypeAdapter[NodeInfo] = TypeAdapter(NodeInfo)
_DEMAND: TypeAdapter[NodeDemand] = TypeAdapter(NodeDemand)


@dataclass(frozen=True, slots=True)
class Collected(Generic[T]):
    """What the nodes have answered; `incomplete` names those that have not."""

    value: T
    incomplete: tuple[str, ...]


class ClusterQueries:
    """Questions to all nodes; each takes at most a second."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def find_connections(
        self, question: FindConnections
    ) -> Collected[tuple[ConnectionInfo, ...]]:
        """The first connections after `question.after` over all nodes, sorted by id."""
        found = await self._ask(question, _CONNECTIONS)
        connections = sorted(
            (connection for each in found.value for connection in each),
            key=lambda each: each.connection_id,
        )
        return Collected(tuple(connections[: question.limit]), found.incomplete)

    async def find_connection(
        self, org: str, connection_id: str
    ) -> Collected[ConnectionInfo | None]:
        """A connection by its id; None if no node that has answered knows it."""
        found = await self._ask(FindConnection(org, connection_id), _CONNECTIONS)
        connections = [connection for each in found.value for connection in each]
        return Collected(connections[0] if connections else None, found.incomplete)

    async def count_subscribers(self, org: str, channel: str) -> Collected[int]:
        """How many connections of an org are subscribed to a channel."""
        found = await self._ask(CountSubscribers(org, channel), _COUNT)
        return Collected(sum(found.value), found.incomplete)

    async def find_topics(self, question: FindTopics) -> Collected[tuple[TopicInfo, ...]]:
        """The first topics after `question.after` over all nodes, sorted by name."""
        found = await self._ask(question, _TOPICS)
        topics = _joined(each for topics in found.value for each in topics)
        return Collected(topics[: question.limit], found.incomplete)

    async def disconnect(self, question: DisconnectUser | DisconnectConnection) -> Collected[int]:
        """Disconnect a user or one connection; returns the number of connections."""
        found = await self._ask(question, _COUNT)
        return Collected(sum(found.value), found.incomplete)

    async def count_revoked(self, question: CountRevoked) -> Collected[int]:
        """How many connections have a token that a revocation refuses."""
        found = await self._ask(question, _COUNT)
        return Collected(sum(found.value), found.incomplete)

    async def nodes(self, org: str) -> Collected[tuple[NodeInfo, ...]]:
        """All nodes, sorted by name."""
        found = await self._ask(DescribeNode(org), _NODE)
        nodes = sorted(found.value, key=lambda each: each.node)
        return Collected(tuple(nodes), found.incomplete)

    async def mark_feed(self, question: MarkFeed) -> Collected[int]:
        """Mark the topics of a feed stale, or the feed live, on all nodes."""
        found = await self._ask(question, _COUNT)
        return Collected(sum(found.value), found.incomplete)

    async def find_demand(self, question: FindDemand) -> Collected[tuple[NodeDemand, ...]]:
        """What the clients of each node are subscribed to."""
        found = await self._ask(question, _DEMAND)
        return Collected(tuple(found.value), found.incomplete)

    async def _ask(self, question: Question, answers: TypeAdapter[T]) -> Collected[list[T]]:
        asked = await self._cluster.ask(encode_question(question))
        decoded: list[T] = []
        malformed: list[str] = []
        for node, answer in asked.by_node.items():
            try:
                decoded.append(answers.validate_json(answer))
            except ValidationError:
                # A node of another version.
                logger.warning("malformed answer of a node", extra={"node": node})
                malformed.append(node)
        return Collected(decoded, (*asked.missing, *malformed))


def _joined(topics: Iterable[TopicInfo]) -> tuple[TopicInfo, ...]:
    """The topics by name, each as the node has it that is furthest, with all subscribers."""
    joined: dict[str, TopicInfo] = {}
    for each in topics:
        other = joined.get(each.topic)
        if other is not None:
            newest = max(other, each, key=lambda one: one.seq)
            each = replace(newest, subscribers=other.subscribers + each.subscribers)
        joined[each.topic] = each
    return tuple(joined[name] for name in sorted(joined))
