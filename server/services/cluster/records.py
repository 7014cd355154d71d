"""What a node tells about its connections and itself."""

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from client_sdk.contract import FeedState


@dataclass(frozen=True, slots=True)
class SubscriptionInfo:
    """One subscribed topic of a connection."""

    topic: str
    interval_ms: Annotated[int, Field(description="the interval that is in effect now")]
    seq: Annotated[int, Field(description="the last message that was sent")]
    lag: Annotated[int, Field(description="how many messages are not sent yet")]


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """One client in one namespace; times are in ms since 1970."""

    connection_id: str
    node: str
    user_id: str
    namespace: str
    device_id: Annotated[
        str, Field(description="the same for all namespaces that share a transport")
    ]
    ip: str
    connected_at: int
    last_activity_at: Annotated[int, Field(description="its last event, or its connect")]
    bytes_waiting: Annotated[int, Field(description="bytes that the client has not read yet")]
    lag: Annotated[int, Field(description="messages that are not sent yet, of all topics")]
    merged: Annotated[int, Field(description="updates merged because the client was behind")]
    dropped: Annotated[int, Field(description="signals not sent because the client was behind")]
    expires_at: Annotated[int | None, Field(description="when its token ends")] = None
    subscriptions: tuple[SubscriptionInfo, ...] = ()
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A public topic as a node has it."""

    topic: str
    subscribers: Annotated[int, Field(description="connections of the token's org")]
    state: FeedState
    epoch: str
    seq: int
    since_ms: Annotated[int | None, Field(description="since when it is STALE")] = None


@dataclass(frozen=True, slots=True)
class FeedInfo:
    """A feed of a node."""

    name: str
    live: bool
    messages: Annotated[int, Field(description="published since the start")]
    failures: Annotated[int, Field(description="how often it was restarted")]
    silent_seconds: Annotated[float, Field(description="since its last message")]


@dataclass(frozen=True, slots=True)
class NodeDemand:
    """The topics and patterns that a node's clients want; None if they are those of the version."""

    node: str
    version: int
    names: list[str] | None


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """One process of the cluster."""

    node: str
    version: str
    pid: int
    started_at: Annotated[int, Field(description="in ms since 1970")]
    ready: bool
    connections: Annotated[int, Field(description="connections of the token's org")]
    users: Annotated[int, Field(description="users of the token's org")]
    figures: Annotated[
        dict[str, int], Field(description="what the whole node does, whatever the org")
    ]
    refusals: Annotated[
        dict[str, int], Field(description="refused requests by code, whatever the org")
    ] = field(default_factory=dict)
    feeds: tuple[FeedInfo, ...] = ()
    memory_bytes: Annotated[
        int | None, Field(description="resident memory, where the system says it")
    ] = None
