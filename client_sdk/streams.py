"""What users iterate over: messages as they come, and gaps where some are missing."""

from typing import Any, Generic, Self, TypeVar, cast

from client_sdk.contract import Position
from client_sdk.reading.base import ReaderHandle
from client_sdk.reading.readers import Reader

ItemT = TypeVar("ItemT")


class MessageStream(ReaderHandle[Reader[Any]], Generic[ItemT]):
    """An async iterator; leaving it, closing it or dropping it ends its subscription.

    `async with` waits until the server has answered for every topic, and closes it at the end.
    """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        listener = self._reader
        while True:
            item = listener.take()
            if item is not None:
                return cast(ItemT, item)
            if listener.is_ended:
                if listener.error is not None:
                    raise listener.error.clone()
                raise StopAsyncIteration
            await listener.wait_changed()

    def position(self, topic: str) -> Position | None:
        """How far this stream has come in a topic or session, with what waits to be read."""
        return self._reader.position(topic)
