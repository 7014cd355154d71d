"""Publishes market messages: validates, stamps and encodes each message once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from pydantic import ValidationError

from client_sdk.contract import STREAM_DATA, BookData, ErrorCode, Stream, StreamData
from server.core.errors import LimitError, RequestError
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Position
from server.core.log.idempotency import Claim
from server.core.market.source_time import SOURCE_TS_FIELD, with_source_ts
from server.core.market.topics import Topic, channel_for
from server.core.wire.strict_json import dumps
from server.core.wire.validation import invalid_request
from server.ports import Broker, Clock
from server.services.market.books import BookPublisher
from server.services.market.topic_shares import TopicShares, TopicSharesConfig

# The validators themselves: `model_validate` costs half as much again.
_VALIDATE: dict[Stream, Callable[[object], StreamData]] = {
    stream: model.__pydantic_validator__.validate_python for stream, model in STREAM_DATA.items()
}
# Gets the topic and the time in ms of each accepted message.
OnPublished = Callable[[Topic, int], None]


def _ignore(topic: Topic, ts_ms: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class PublishingConfig:
    """Limits on the size of a message, the depth of a book, and the topics of each publisher."""

    message_bytes: int = 64 * 1024
    book_levels: int = 200
    topics: TopicSharesConfig = field(default_factory=TopicSharesConfig)


class PublishingService:
    """Implements the `Publishing` port with a broker."""

    def __init__(
        self,
        config: PublishingConfig,
        broker: Broker,
        clock: Clock,
        on_published: OnPublished = _ignore,
    ) -> None:
        self._config = config
        self._broker = broker
        self._clock = clock
        self._on_published = on_published
        self._books = BookPublisher(broker, max_levels=config.book_levels)
        self.topics = TopicShares(config.topics, broker, self._books.evict)
        # Valid messages, retries included.
        self.published = 0

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
        identifier: str | None = None,
        publisher: str = "",
        source_ts: int | None = None,
    ) -> Position:
        """Publish one message and return its position.

        An `identifier` makes the call idempotent for its `publisher`, whose share the topic counts
        to; without a publisher only the limits of the server apply. `user` and `org` name the
        owner of a private topic, `source_ts` is the venue's time in ms. Raises `RequestError` or
        `LimitError` for an invalid message.
        """
        parsed, model, encoded = self.check(topic, data, kind=kind, user=user)
        if source_ts is not None and not isinstance(model, BookData):
            encoded = with_source_ts(encoded, source_ts)
        channel = channel_for(parsed, org, user or "")
        owner = Owner(org, publisher) if publisher else SERVER
        claim = None
        if identifier is not None:
            key = "\0".join((org, publisher, channel, identifier))
            digest = blake2b(kind.encode() + encoded, digest_size=16).digest()
            claim = Claim(key, digest, owner)
        ts_ms = int(self._clock.time() * 1000)
        if isinstance(model, BookData):
            position = await self._publish_book(
                channel, model, ts_ms, kind, claim, owner, source_ts
            )
            self._on_published(parsed, ts_ms)
            return position
        is_new = False
        if not self.topics.renew(channel, owner, len(encoded), ts_ms):
            is_new = channel not in self.topics
            await self.topics.admit(channel, owner, len(encoded), ts_ms)
        self.published += 1
        kept = not parsed.stream.is_conflated
        try:
            receipt = await self._broker.publish(
                channel, encoded, ts_ms, kind=kind, claim=claim, in_history=kept, owner=owner
            )
        except BaseException:
            if is_new:
                self.topics.remove(channel)
            raise
        if parsed.symbol is not None:
            self._on_published(parsed, ts_ms)
        return receipt.position

    def check(
        self, topic: str, data: Mapping[str, object], *, kind: str, user: str | None
    ) -> tuple[Topic, StreamData, bytes]:
        """Validate a message without publishing it; returns it parsed and encoded."""
        parsed = Topic.parse(topic)
        if (parsed.symbol is None) != (user is not None):
            problem = "needs a user" if user is None else "is public: omit the user"
            raise RequestError(ErrorCode.REQUEST_INVALID, f"{topic} {problem}")
        if parsed.view is not None:
            raise RequestError(
                ErrorCode.REQUEST_INVALID,
                f"{topic} is derived by the server: publish {parsed.source.name}",
            )
        if kind == "snapshot" and not parsed.stream.is_conflated:
            raise RequestError(
                ErrorCode.REQUEST_INVALID, f"{topic} has no snapshots: publish an update"
            )
        # pydantic and orjson accept only a dict.
        return parsed, *self._validate(parsed, dict(data))

    async def _publish_book(
        self,
        channel: str,
        data: BookData,
        ts_ms: int,
        kind: str,
        claim: Claim | None,
        owner: Owner,
        source_ts: int | None,
    ) -> Position:
        books = self._books
        await self.topics.admit(channel, owner, books.max_size_bytes(channel, data, kind), ts_ms)
        self.published += 1
        try:
            return await books.publish(channel, data, ts_ms, kind, claim, owner, source_ts)
        finally:
            if channel in books:
                self.topics.resize(channel, books.size_bytes(channel))
            else:
                self.topics.remove(channel)

    def _validate(self, topic: Topic, fields: dict[str, object]) -> tuple[StreamData, bytes]:
        try:
            model = _VALIDATE[topic.stream](fields)
            encoded = dumps(fields)
        except ValidationError as error:
            raise invalid_request(error, f"{topic.name}: ") from None
        except ValueError as error:
            raise RequestError(ErrorCode.REQUEST_INVALID, f"{topic.name}: {error}") from None
        if SOURCE_TS_FIELD in fields:
            raise RequestError(
                ErrorCode.REQUEST_INVALID,
                f"{topic.name}: {SOURCE_TS_FIELD} is reserved: give the time as source_ts",
            )
        if len(encoded) > self._config.message_bytes:
            raise LimitError(
                ErrorCode.LIMIT_PAYLOAD,
                f"a message may have at most {self._config.message_bytes} bytes",
                details={"limit": self._config.message_bytes},
            )
        return model, encoded
