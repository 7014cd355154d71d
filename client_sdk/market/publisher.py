"""Publishes: what is asked for at once goes out as one request, in order, and again if need be."""

import asyncio
import uuid
from collections import deque
from collections.abc import Mapping
from functools import partial

from client_sdk.config import ClientConfig
from client_sdk.connection.namespaces import Namespace
from client_sdk.connection.packets import encode
from client_sdk.connection.worker import Worker
from client_sdk.contract import Position
from client_sdk.contract.replies import PublishedPosition, PublishReply, parse_reply
from client_sdk.errors import BufferFull, FloorcastError, LimitExceeded, SendTimeout, is_retryable


class _PendingPublication:
    """One message on its way, and who waits for its position."""

    __slots__ = ("future", "size_bytes", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.size_bytes = len(text.encode())
        self.future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

    def fail(self, error: FloorcastError) -> None:
        if not self.future.done():
            self.future.set_exception(error.clone())


class Publisher:
    """One request at a time: while it is on its way, the next one fills."""

    def __init__(self, namespace: Namespace, config: ClientConfig) -> None:
        self._namespace = namespace
        self._config = config
        self._queue: deque[_PendingPublication] = deque()
        self._worker = Worker("publisher", namespace, self._send_batches)

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        user: str | None = None,
        type: str = "update",  # noqa: A002
    ) -> Position:
        """Publish one message; its position, once it is in the history.

        Every message has an id, so that sending it again after a lost answer makes no second.
        Raises `SendTimeout` where no answer came in time: it may have been published.
        """
        body = {"topic": topic, "data": data, "type": type, "id": id or uuid.uuid4().hex}
        if user is not None:
            body["user"] = user
        entry = _PendingPublication(encode(body))
        config = self._config
        if entry.size_bytes > config.batch_bytes:
            raise LimitExceeded(
                f"a message may have {config.batch_bytes} bytes", code="limit.payload"
            )
        if self._namespace.gate.error is not None:
            raise self._namespace.gate.error.clone()
        if len(self._queue) >= config.pending_messages:
            raise BufferFull(f"{config.pending_messages} messages wait already")
        self._namespace.request_join()
        self._queue.append(entry)
        self._worker.wake()
        try:
            async with asyncio.timeout(config.send_seconds):
                return await entry.future
        except TimeoutError:
            raise SendTimeout(f"not published within {config.send_seconds:g} s") from None
        finally:
            self._prune()

    def on_join(self) -> None:
        """There is a connection again."""
        if self._queue:
            self._worker.wake()

    def fail(self, error: FloorcastError) -> None:
        """Nothing will be published any more."""
        while self._queue:
            self._queue.popleft().fail(error)

    async def close(self) -> None:
        """End the task."""
        await self._worker.close()

    async def _send_batches(self) -> None:
        while self._queue:
            batch = self._next_batch()
            if not batch:
                continue
            request = f'{{"messages":[{",".join(entry.text for entry in batch)}]}}'
            try:
                await self._namespace.request("publish", request, partial(_apply_reply, batch))
            except FloorcastError as error:
                if is_retryable(error):
                    raise
                for entry in batch:
                    entry.fail(error)

    def _prune(self) -> None:
        """Let go of those in front that nobody waits for."""
        while self._queue and self._queue[0].future.done():
            self._queue.popleft()

    def _next_batch(self) -> list[_PendingPublication]:
        """The first that still have somebody waiting, as many as fit."""
        self._prune()
        batch: list[_PendingPublication] = []
        room = self._config.batch_bytes
        for entry in self._queue:
            if entry.future.done():
                continue
            room -= entry.size_bytes + 1
            if len(batch) >= self._config.batch_messages or (batch and room < 0):
                break
            batch.append(entry)
        return batch


def _apply_reply(batch: list[_PendingPublication], text: str) -> None:
    answer = parse_reply(PublishReply, text, partial=True)
    if len(answer.positions) != len(batch):
        # Refused as a whole.
        parse_reply(PublishReply, text)
        raise FloorcastError("an answer for another request", code="client.protocol")
    for entry, outcome in zip(batch, answer.positions, strict=True):
        if not isinstance(outcome, PublishedPosition):
            entry.fail(outcome.error.to_error())
        elif not entry.future.done():
            entry.future.set_result(Position(epoch=outcome.epoch, seq=outcome.seq))
