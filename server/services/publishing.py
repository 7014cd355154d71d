"""Takes updates into the market: checked, stamped, encoded once, and given their position."""

from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from client_sdk.contract import ErrorCode, PriceData, Stream
from server.core.errors import LimitError, RequestError
from server.core.strict_json import dumps
from server.core.topics import Topic
from server.ports import Broker, Clock, Position

_MODELS: dict[Stream, type[BaseModel]] = {Stream.PRICE: PriceData}


class PublishingService:
    """Fills the `Publishing` port over a broker."""

    def __init__(self, broker: Broker, clock: Clock, *, max_message_bytes: int) -> None:
        self._broker = broker
        self._clock = clock
        self._max_message_bytes = max_message_bytes

    async def publish(self, topic: str, data: Mapping[str, object]) -> Position:
        """Publish one update of a public topic."""
        parsed = Topic.parse(topic)
        model = _MODELS.get(parsed.stream)
        if model is None:
            raise RequestError(ErrorCode.TOPIC_UNKNOWN, f"{parsed.stream.value} is not served yet")
        # Any mapping will do; neither pydantic nor orjson takes one that is no dict.
        fields = dict(data)
        try:
            model.model_validate(fields)
            encoded = dumps(fields)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise RequestError(
                ErrorCode.REQUEST_INVALID, f"{topic}: {where}: {first['msg']}"
            ) from None
        except ValueError as error:
            raise RequestError(ErrorCode.REQUEST_INVALID, f"{topic}: {error}") from None
        if len(encoded) > self._max_message_bytes:
            raise LimitError(
                ErrorCode.LIMIT_PAYLOAD, f"a message may have {self._max_message_bytes} bytes"
            )
        return await self._broker.publish(parsed.name, encoded, int(self._clock.time() * 1000))
