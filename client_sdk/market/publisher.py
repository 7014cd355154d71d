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
from client_sdk.contract.replies import Place, PublishAnswer, read
from client_sdk.errors import BufferFull, FloorcastError, LimitExceeded, SendTimeout, may_pass


class _Entry:
    """One message on its way, and who waits for its position."""

    __slots__ = ("future", "size_bytes", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.size_bytes = len(text.encode())
        self.future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

    def fail(self, error: FloorcastError) -> None:
        if not self.future.done():
            self.future.set_exception(error.again())


class Publisher:
    """One request at a time: while it is on its way, the next one fills."""

    def __init__(self, namespace: Namespace, config: ClientConfig) -> None:
        self._namespace = namespace
        self._config = config
        self._line: deque[_Entry] = deque()
        self._worker = Worker("publisher", namespace, self._round)

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
        entry = _Entry(encode(body))
        config = self._config
        if entry.size_bytes > config.batch_bytes:
            raise LimitExceeded(
                f"a message may have {config.batch_bytes} bytes", code="limit.payload"
            )
        if self._namespace.gate.error is not None:
            raise self._namespace.gate.error.again()
        if len(self._line) >= config.pending_messages:
            raise BufferFull(f"{config.pending_messages} messages wait already")
        self._namespace.want()
        self._line.append(entry)
        self._worker.wake()
        try:
            async with asyncio.timeout(config.send_seconds):
                return await entry.future
        except TimeoutError:
            raise SendTimeout(f"not published within {config.send_seconds:g} s") from None
        finally:
            self._prune()

    def joined(self) -> None:
        """There is a connection again."""
        if self._line:
            self._worker.wake()

    def fail(self, error: FloorcastError) -> None:
        """Nothing will be published any more."""
        while self._line:
            self._line.popleft().fail(error)

    async def close(self) -> None:
        """End the task."""
        await self._worker.close()

    async def _round(self) -> None:
        while self._line:
            batch = self._batch()
            if not batch:
                continue
            request = f'{{"messages":[{",".join(entry.text for entry in batch)}]}}'
            try:
                await self._namespace.ask("publish", request, partial(_settle, batch))
            except FloorcastError as error:
                if may_pass(error):
                    raise
                for entry in batch:
                    entry.fail(error)

    def _prune(self) -> None:
        """Let go of those in front that nobody waits for."""
        while self._line and self._line[0].future.done():
            self._line.popleft()

    def _batch(self) -> list[_Entry]:
        """The first that still have somebody waiting, as many as fit."""
        self._prune()
        batch: list[_Entry] = []
        room = self._config.batch_bytes
        for entry in self._line:
            if entry.future.done():
                continue
            room -= entry.size_bytes + 1
            if len(batch) >= self._config.batch_messages or (batch and room < 0):
                break
            batch.append(entry)
        return batch


def _settle(batch: list[_Entry], text: str) -> None:
    answer = read(PublishAnswer, text, partial=True)
    if len(answer.positions) != len(batch):
        # Refused as a whole.
        read(PublishAnswer, text)
        raise FloorcastError("an answer for another request", code="client.protocol")
    for entry, outcome in zip(batch, answer.positions, strict=True):
        if not isinstance(outcome, Place):
            entry.fail(outcome.error.error())
        elif not entry.future.done():
            entry.future.set_result(Position(epoch=outcome.epoch, seq=outcome.seq))
