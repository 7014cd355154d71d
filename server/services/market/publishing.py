"""Publishes market messages: validates, stamps and encodes each message once."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from pydantic import ValidationError

from client_sdk.contract import STREAM_DATA, BookData, ErrorCode, StreamData
from server.core.errors import LimitError, RequestError
from server.core.log.entries import Position
from server.core.log.idempotency import Claim
from server.core.market.topics import Topic, channel_for
from server.core.wire.strict_json import dumps
from server.core.wire.validation import invalid_request
from server.ports import Broker, Clock
from server.services.market.books import BookPublisher


@dataclass(frozen=True, slots=True)
class PublishingConfig:
    """Limits on the size of a message and the depth of an order book."""

    message_bytes: int = 64 * 1024
    book_levels: int = 200


class PublishingService:
    """Implements the `Publishing` port with a broker."""

    def __init__(self, config: PublishingConfig, broker: Broker, clock: Clock) -> None:
        self._config = config
        self._broker = broker
        self._clock = clock
        self._books = BookPublisher(broker, max_levels=config.book_levels)
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
    ) -> Position:
        """Publish one message and return its position.

        An `identifier` makes the call idempotent for its `publisher`. `user` and `org` name the
        owner of a private topic. Raises `RequestError` or `LimitError` for an invalid message.
        """
        parsed = Topic.parse(topic)
        if (parsed.symbol is None) != (user is not None):
            problem = "needs a user" if user is None else "is public: omit the user"
            raise RequestError(ErrorCode.REQUEST_INVALID, f"{topic} {problem}")
        if kind == "snapshot" and not parsed.stream.is_conflated:
            raise RequestError(
                ErrorCode.REQUEST_INVALID, f"{topic} has no snapshots: publish an update"
            )
        # pydantic and orjson accept only a dict.
        fields = dict(data)
        model, encoded = self._validate(parsed, fields)
        channel = channel_for(parsed, org, user or "")
        claim = None
        if identifier is not None:
            key = "\0".join((org, publisher, channel, identifier))
            claim = Claim(key, blake2b(kind.encode() + encoded, digest_size=16).digest())
        ts_ms = int(self._clock.time() * 1000)
        self.published += 1
        if isinstance(model, BookData):
            return await self._books.publish(channel, model, ts_ms, kind, claim)
        kept = not parsed.stream.is_conflated
        receipt = await self._broker.publish(
            channel, encoded, ts_ms, kind=kind, claim=claim, in_history=kept
        )
        return receipt.position

    def _validate(self, topic: Topic, fields: dict[str, object]) -> tuple[StreamData, bytes]:
        try:
            model = STREAM_DATA[topic.stream].model_validate(fields)
            encoded = dumps(fields)
        except ValidationError as error:
            raise invalid_request(error, f"{topic.name}: ") from None
        except ValueError as error:
            raise RequestError(ErrorCode.REQUEST_INVALID, f"{topic.name}: {error}") from None
        if len(encoded) > self._config.message_bytes:
            raise LimitError(
                ErrorCode.LIMIT_PAYLOAD,
                f"a message may have at most {self._config.message_bytes} bytes",
                details={"limit": self._config.message_bytes},
            )
        return model, encoded
