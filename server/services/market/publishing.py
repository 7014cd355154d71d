"""Publishes market messages: validates, stamps and encodes each message once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b

import orjson
from pydantic import ValidationError

from client_sdk.contract import STREAM_DATA, BookData, ErrorCode, Stream
from server.core.errors import LimitError, RequestError
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Position
from server.core.log.idempotency import Claim
from server.core.market.source_time import SOURCE_TS_FIELD, split_source_ts, with_source_ts
from server.core.market.topics import Topic, channel_for
from server.core.wire.strict_json import dumps
from server.core.wire.validation import fields_validator, invalid_request
from server.ports import Broker, Clock, ignore
from server.services.market.books import BookPublisher
from server.services.market.topic_shares import TopicShares, TopicSharesConfig

# Only the levels of a book are used after they were validated.
_VALIDATE: dict[Stream, Callable[[object], object]] = {
    stream: fields_validator(model) for stream, model in STREAM_DATA.items()
} | {Stream.ORDERBOOK: BookData.__pydantic_validator__.validate_python}
# Publishers choose these, so the cache is bounded; errors are not cached.
_MAX_TARGETS = 8192
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


@dataclass(frozen=True, slots=True)
class _Target:
    """Where messages of one topic and kind go, and what their data must be."""

    topic: Topic
    channel: str
    validate: Callable[[object], object]
    is_kept: bool


class PublishingService:
    """Implements the `Publishing` port with a broker."""

    def __init__(
        self,
        config: PublishingConfig,
        broker: Broker,
        clock: Clock,
        on_published: OnPublished = _ignore,
        on_evicted: Callable[[str], None] = ignore,
    ) -> None:
        self._config = config
        self._broker = broker
        self._clock = clock
        self._on_published = on_published
        self._books = BookPublisher(broker, max_levels=config.book_levels)
        self._on_evicted = on_evicted
        self.topics = TopicShares(config.topics, broker, self._evict)
        # Valid messages, retries included.
        self.published = 0

    def _evict(self, channel: str) -> None:
        self._books.evict(channel)
        self._on_evicted(channel)

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        kind: str = "update",
        user: str | None = None,
        org: str = "default",
        identifier: str | None = None,
        owner: Owner = SERVER,
        source_ts: int | None = None,
    ) -> Position:
        """Publish one message and return its position.

        An `identifier` makes the call idempotent for its `owner`, whose share the topic counts to;
        for the server itself only the limits of the server apply. `user` and `org` name the
        owner of a private topic, `source_ts` is the venue's time in ms. Raises `RequestError` or
        `LimitError` for an invalid message.
        """
        target = _target(topic, kind, user, org)
        channel = target.channel
        book, encoded = self._validate(target, data)
        if source_ts is not None and book is None:
            encoded = with_source_ts(encoded, source_ts)
        claim = None
        if identifier is not None:
            key = "\0".join((org, owner.user_id, channel, identifier))
            digest = blake2b(kind.encode() + encoded, digest_size=16).digest()
            claim = Claim(key, digest, owner)
        ts_ms = int(self._clock.time() * 1000)
        if book is not None:
            position = await self._publish_book(channel, book, ts_ms, kind, claim, owner, source_ts)
            self._on_published(target.topic, ts_ms)
            return position
        is_new = False
        if not self.topics.renew(channel, owner, len(encoded), ts_ms):
            is_new = channel not in self.topics
            await self.topics.admit(channel, owner, len(encoded), ts_ms)
        self.published += 1
        try:
            receipt = await self._broker.publish(
                channel,
                encoded,
                ts_ms,
                kind=kind,
                claim=claim,
                in_history=target.is_kept,
                owner=owner,
            )
        except BaseException:
            if is_new:
                self.topics.remove(channel)
            raise
        if user is None:
            self._on_published(target.topic, ts_ms)
        return receipt.position

    async def latest(self, topic: str) -> Mapping[str, object] | None:
        """The data of the newest message of a public topic; None if there is none."""
        entry = await self._broker.latest(Topic.parse(topic).name)
        if entry is None:
            return None
        _, encoded = split_source_ts(entry.data)
        data: Mapping[str, object] = orjson.loads(encoded)
        return data

    def check(self, topic: str, data: Mapping[str, object], *, kind: str, user: str | None) -> None:
        """Validate a message without publishing it; raises as `publish` does."""
        self._validate(_target(topic, kind, user, ""), data)

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

    def _validate(
        self, target: _Target, data: Mapping[str, object]
    ) -> tuple[BookData | None, bytes]:
        name = target.topic.name
        # pydantic and orjson accept only a dict.
        fields = data if type(data) is dict else dict(data)
        try:
            valid = target.validate(fields)
            encoded = dumps(fields)
        except ValidationError as error:
            raise invalid_request(error, f"{name}: ") from None
        except ValueError as error:
            raise RequestError(ErrorCode.REQUEST_INVALID, f"{name}: {error}") from None
        if SOURCE_TS_FIELD in fields:
            raise RequestError(
                ErrorCode.REQUEST_INVALID,
                f"{name}: {SOURCE_TS_FIELD} is reserved: give the time as source_ts",
            )
        if len(encoded) > self._config.message_bytes:
            raise LimitError(
                ErrorCode.LIMIT_PAYLOAD,
                f"a message may have at most {self._config.message_bytes} bytes",
                details={"limit": self._config.message_bytes},
            )
        return valid if isinstance(valid, BookData) else None, encoded


@lru_cache(maxsize=_MAX_TARGETS)
def _target(name: str, kind: str, user: str | None, org: str) -> _Target:
    """Raises `RequestError` if there is no such topic, or if it has no messages of this kind."""
    topic = Topic.parse(name)
    if (topic.symbol is None) != (user is not None):
        problem = "needs a user" if user is None else "is public: omit the user"
        raise RequestError(ErrorCode.REQUEST_INVALID, f"{name} {problem}")
    if topic.view is not None:
        raise RequestError(
            ErrorCode.REQUEST_INVALID,
            f"{name} is derived by the server: publish {topic.source.name}",
        )
    if kind == "snapshot" and not topic.stream.is_conflated:
        raise RequestError(ErrorCode.REQUEST_INVALID, f"{name} has no snapshots: publish an update")
    return _Target(
        topic,
        channel_for(topic, org, user or ""),
        _VALIDATE[topic.stream],
        is_kept=not topic.stream.is_conflated,
    )
