"""The market as users see it: prices, trades, any topic, callbacks, publishing."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from pydantic import ValidationError

from client_sdk.clock import ServerClock
from client_sdk.config import ClientConfig
from client_sdk.contract import Position, Stream
from client_sdk.errors import ClientClosed, FloorcastError
from client_sdk.listeners import Listener
from client_sdk.models import (
    MESSAGE_MODELS,
    AnyMessage,
    Gap,
    MarketMessage,
    PriceMessage,
    TradesMessage,
)
from client_sdk.namespaces import Namespace
from client_sdk.packets import Packet
from client_sdk.publisher import Publisher
from client_sdk.stats import Counters
from client_sdk.streams import MessageStream
from client_sdk.subscriptions import Subscriptions

logger = logging.getLogger(__name__)

OnMessage = Callable[[Any], Awaitable[None] | None]


class Market:
    """`client.market`."""

    def __init__(
        self, namespace: Namespace, config: ClientConfig, counters: Counters, clock: ServerClock
    ) -> None:
        self._namespace = namespace
        self._config = config
        self._counters = counters
        self._clock = clock
        self._subscriptions = Subscriptions(namespace, counters)
        self._publisher = Publisher(namespace, config)
        namespace.on_event = self._on_event
        namespace.on_join = self._on_join
        namespace.on_failure = self._on_failure

    # --- reading

    def prices(self, *symbols: str, interval_ms: int = 0) -> MessageStream[PriceMessage]:
        """The latest price of each symbol, whenever it changes; a slow reader skips old ones."""
        return self._stream([f"{Stream.PRICE}:{each}" for each in symbols], interval_ms)

    def trades(self, *symbols: str) -> MessageStream[TradesMessage | Gap]:
        """Every trade, in order; a `Gap` where some could not be had."""
        return self._stream([f"{Stream.TRADES}:{each}" for each in symbols], 0)

    def stream(self, *topics: str, interval_ms: int = 0) -> MessageStream[AnyMessage | Gap]:
        """Any topics, each by the rules of its stream."""
        return self._stream(topics, interval_ms)

    def _stream(self, topics: Any, interval_ms: int) -> MessageStream[Any]:
        listener: Listener[MarketMessage] = Listener(
            self._config.buffer_messages, self._counters, on_room=self._subscriptions.refill
        )
        if not topics:
            raise ValueError("name at least one")
        if self._namespace.gate.error is not None:
            raise self._namespace.gate.error.again()
        self._subscriptions.add(listener, topics, interval_ms)
        return MessageStream(listener, self._subscriptions.remove)

    # --- publishing

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        user: str | None = None,
        type: Literal["update", "snapshot"] = "update",  # noqa: A002
    ) -> Position:
        """Publish one message; concurrent calls share a request. Its position once it is kept."""
        return await self._publisher.publish(topic, data, id=id, user=user, type=type)

    # --- what comes

    def _on_event(self, packet: Packet) -> None:
        model = MESSAGE_MODELS.get(packet.event)
        if model is None:
            return
        self._counters.received += 1
        try:
            message = model.model_validate_json(packet.body)
        except ValidationError:
            return
        message.timed_by(self._clock)
        self._subscriptions.hear(message)

    def _on_join(self) -> None:
        self._subscriptions.joined()
        self._publisher.joined()

    def _on_failure(self, error: FloorcastError) -> None:
        closed = isinstance(error, ClientClosed)
        self._subscriptions.fail(None if closed else error)
        self._publisher.fail(error)

    async def close(self) -> None:
        """End what runs for it."""
        await self._subscriptions.close()
        await self._publisher.close()
