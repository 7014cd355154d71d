"""Publishing, and reading topics."""

from typing import Annotated, Any

import orjson
from pydantic import Field, WithJsonSchema

from client_sdk.contract import ErrorCode, FeedState, Scope
from client_sdk.contract.names import MAX_TOPIC_CHARACTERS
from server.core.log.entries import Position
from server.services import ClientPublishing, ClusterQueries, FindTopics, TopicInfo, TopicReading
from server.services.market.client_publishing import publish_reply
from server.web.api.endpoints import Answer, AnyEndpoint, ApiCall, ClusterAnswer, Endpoint
from server.web.api.errors import status_of
from server.web.api.handling import PartialFailure
from server.web.api.paging import Cursor, Limit
from server.web.api.reading import FROM_TEXT, ApiRequest

TopicName = Annotated[
    str, Field(min_length=1, max_length=MAX_TOPIC_CHARACTERS, examples=["PRICE:BTCUSDT"])
]
Seq = Annotated[int, Field(ge=0, le=2**53), FROM_TEXT]
# Encoded already, as all clients get it.
EncodedMessage = Annotated[
    Any, WithJsonSchema({"$ref": "#/components/schemas/MarketMessage"}, mode="serialization")
]


class PublishRequest(ApiRequest):
    """Messages to publish, each valid or refused by itself."""

    messages: Annotated[
        list[
            Annotated[
                object,
                WithJsonSchema({"$ref": "#/components/schemas/Publication"}, mode="validation"),
            ]
        ],
        Field(min_length=1, max_length=1000),
    ]


class PositionAnswer(Answer):
    """The position of a message: `seq` counts up by 1 a topic."""

    epoch: str
    seq: int


class PublishAnswer(Answer):
    """One position a message, in order."""

    positions: list[PositionAnswer]


class TopicRequest(ApiRequest):
    """A topic of the caller: a private one is that of the token's user."""

    topic: TopicName


class TopicAnswer(ClusterAnswer):
    """A topic as it is now."""

    topic: str
    state: FeedState
    since_ms: int | None = Field(default=None, description="since when it is STALE")
    epoch: str
    seq: int
    subscribers: int = Field(description="connections of the token's org, over all nodes")
    snapshot: EncodedMessage | None = Field(
        default=None, description="missing if the newest state was lost"
    )


class TopicsRequest(ApiRequest):
    """The public topics that connections of the token's org are subscribed to."""

    match: Annotated[
        str,
        Field(
            max_length=MAX_TOPIC_CHARACTERS,
            pattern=r"^[A-Z0-9._/:@_*-]+$",
            description="a pattern such as `PRICE:*` or `*:BTC*`",
        ),
    ] = "*"
    limit: Limit = 50
    cursor: Cursor | None = None


class TopicsAnswer(ClusterAnswer):
    """One page of topics, by name."""

    topics: list[TopicInfo]
    next_cursor: str | None = None


class TopicHistoryRequest(ApiRequest):
    """Messages after a position, or the newest ones."""

    topic: TopicName
    after_seq: Seq | None = None
    limit: Annotated[int, Field(ge=1, le=1000), FROM_TEXT] = 100


class TopicHistoryAnswer(Answer):
    """Messages of a topic, oldest first; PRICE and ORDERBOOK keep only a snapshot."""

    topic: str
    epoch: str
    seq: int
    complete: bool = Field(description="false if messages after `after_seq` are gone")
    has_more: bool = Field(description="ask again with `after_seq` of the last message")
    messages: list[EncodedMessage]


class MarketRoutes:
    """The endpoints of topics."""

    def __init__(
        self, publishing: ClientPublishing, reading: TopicReading, cluster: ClusterQueries
    ) -> None:
        self._publishing = publishing
        self._reading = reading
        self._cluster = cluster

    def endpoints(self) -> tuple[AnyEndpoint, ...]:
        """All endpoints of this room."""
        return (
            Endpoint(
                "POST",
                "/publish",
                Scope.MARKET_PUBLISH,
                "Publish messages",
                PublishRequest,
                PublishAnswer,
                self._publish,
            ),
            Endpoint(
                "GET",
                "/topics",
                Scope.ADMIN,
                "List subscribed topics",
                TopicsRequest,
                TopicsAnswer,
                self._topics,
            ),
            Endpoint(
                "GET",
                "/topics/{topic}/history",
                Scope.MARKET_READ,
                "Read the history of a topic",
                TopicHistoryRequest,
                TopicHistoryAnswer,
                self._history,
            ),
            Endpoint(
                "GET",
                "/topics/{topic}",
                Scope.MARKET_READ,
                "Read a topic",
                TopicRequest,
                TopicAnswer,
                self._topic,
            ),
        )

    async def _publish(self, call: ApiCall, request: PublishRequest) -> PublishAnswer:
        messages = request.messages
        call.charge_items(len(messages))
        if call.idempotency_key is not None:
            messages = _with_ids(messages, call.idempotency_key)
        outcomes = await self._publishing.publish(call.principal, messages)
        positions = [each for each in outcomes if isinstance(each, Position)]
        if len(positions) == len(outcomes):
            return PublishAnswer(
                positions=[PositionAnswer(epoch=each.epoch, seq=each.seq) for each in positions]
            )
        refused = next(each for each in outcomes if not isinstance(each, Position))
        # A wrong path is 404; here it is a wrong field.
        status = 400 if refused.code is ErrorCode.TOPIC_UNKNOWN else status_of(refused)
        reply = publish_reply(outcomes)
        raise PartialFailure(
            refused, {"error": reply["error"], "positions": reply["positions"]}, status
        )

    async def _topics(self, call: ApiCall, request: TopicsRequest) -> TopicsAnswer:
        found = await self._cluster.find_topics(
            FindTopics(
                call.principal.org,
                request.match,
                request.cursor or "",
                # One more shows if there is another page.
                request.limit + 1,
            )
        )
        page = found.value[: request.limit]
        has_more = len(found.value) > request.limit
        return TopicsAnswer(
            topics=[each for each in page if each.subscribers],
            next_cursor=page[-1].topic if has_more else None,
            incomplete=list(found.incomplete),
        )

    async def _topic(self, call: ApiCall, request: TopicRequest) -> TopicAnswer:
        head = await self._reading.head(call.principal, request.topic)
        subscribers = await self._cluster.count_subscribers(call.principal.org, head.channel)
        return TopicAnswer(
            topic=head.name,
            state=head.state,
            since_ms=head.since_ms,
            epoch=head.position.epoch,
            seq=head.position.seq,
            subscribers=subscribers.value,
            snapshot=None if head.snapshot is None else orjson.Fragment(head.snapshot),
            incomplete=list(subscribers.incomplete),
        )

    async def _history(self, call: ApiCall, request: TopicHistoryRequest) -> TopicHistoryAnswer:
        history = await self._reading.history(
            call.principal, request.topic, request.after_seq, request.limit
        )
        return TopicHistoryAnswer(
            topic=request.topic,
            epoch=history.head.epoch,
            seq=history.head.seq,
            complete=history.complete,
            has_more=history.has_more,
            messages=[orjson.Fragment(each) for each in history.messages],
        )


def _with_ids(messages: list[object], key: str) -> list[object]:
    """The messages with ids made from an idempotency key, where they have none."""
    if len(messages) == 1:
        return [_with_id(messages[0], key)]
    return [_with_id(each, f"{key}.{index}") for index, each in enumerate(messages)]


def _with_id(message: object, identifier: str) -> object:
    return {"id": identifier, **message} if isinstance(message, dict) else message
