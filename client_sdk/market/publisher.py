"""Publishes messages: batches concurrent calls, keeps their order, and retries."""

import asyncio
import uuid
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

from client_sdk.config import ClientConfig
from client_sdk.connection.namespaces import Namespace, Worker
from client_sdk.connection.packets import encode, parse_reply
from client_sdk.contract import ErrorCode, Position
from client_sdk.contract.replies import PublishedPosition, PublishReply
from client_sdk.errors import (
    BufferFull,
    FloorcastError,
    LimitExceeded,
    SendTimeout,
    error_from_body,
    is_retryable,
)
from client_sdk.market.decimals import with_decimal_text
from client_sdk.market.published_books import PublishedBooks

_SNAPSHOT_REQUIRED = ErrorCode.PUBLISH_SNAPSHOT_REQUIRED.value


class _PendingPublication:
    """One message, encoded, and the future of its position."""

    __slots__ = ("body", "future", "size_bytes", "text")

    def __init__(self, body: dict[str, Any]) -> None:
        self.encode(body)
        self.future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

    def encode(self, body: dict[str, Any]) -> None:
        self.body = body
        self.text = encode(body)
        self.size_bytes = len(self.text.encode())

    @property
    def message(self) -> tuple[str, Mapping[str, object], str]:
        """The topic, data and type."""
        return self.body["topic"], self.body["data"], self.body["type"]

    def fail(self, error: FloorcastError) -> None:
        if not self.future.done():
            self.future.set_exception(error.clone())


class Publisher:
    """Sends one request at a time; messages queue up for the next one meanwhile."""

    def __init__(self, namespace: Namespace, config: ClientConfig) -> None:
        self._namespace = namespace
        self._config = config
        self._queue: deque[_PendingPublication] = deque()
        self._books = PublishedBooks()
        self._worker = Worker("publisher", namespace, self._send_batches)

    async def publish(
        self,
        topic: str,
        data: Mapping[str, object],
        *,
        id: str | None = None,  # noqa: A002
        user: str | None = None,
        type: str = "update",  # noqa: A002
        source_ts: int | None = None,
        timeout: float | None = None,
    ) -> Position:
        """Publish one message and return its position.

        Every message gets an id, so that a retry after a lost reply does not publish it twice.
        Raises `SendTimeout` without a reply within `timeout`, by default `send_seconds`: the
        message may have been published.
        """
        body: dict[str, Any] = {
            "topic": topic,
            "data": with_decimal_text(topic, data),
            "type": type,
            "id": id or uuid.uuid4().hex,
        }
        if user is not None:
            body["user"] = user
        if source_ts is not None:
            body["source_ts"] = source_ts
        publication = _PendingPublication(body)
        config = self._config
        if publication.size_bytes > config.batch_bytes:
            raise LimitExceeded(
                f"a message is limited to {config.batch_bytes} bytes", code="limit.payload"
            )
        self._namespace.require_usable()
        if len(self._queue) >= config.pending_messages:
            raise BufferFull(f"{config.pending_messages} messages wait already")
        self._namespace.request_join()
        self._queue.append(publication)
        self._worker.wake()
        seconds = config.send_seconds if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                return await publication.future
        except TimeoutError:
            raise SendTimeout(f"not published within {seconds:g} s") from None
        finally:
            self._prune()

    def on_join(self) -> None:
        """Continue with what is queued."""
        if self._queue:
            self._worker.wake()

    def fail(self, error: FloorcastError) -> None:
        """Fail all that is queued."""
        while self._queue:
            self._queue.popleft().fail(error)

    async def close(self) -> None:
        """End its task."""
        await self._worker.close()

    async def _send_batches(self) -> None:
        while self._queue:
            batch = self._next_batch()
            if not batch:
                continue
            request = f'{{"messages":[{",".join(each.text for each in batch)}]}}'
            try:
                await self._namespace.request("publish", request, partial(self._apply_reply, batch))
            except FloorcastError as error:
                if is_retryable(error):
                    raise
                for publication in batch:
                    publication.fail(error)

    def _prune(self) -> None:
        """Drop finished and cancelled messages at the head of the queue."""
        while self._queue and self._queue[0].future.done():
            self._queue.popleft()

    def _next_batch(self) -> list[_PendingPublication]:
        """The oldest messages that still have a caller, as many as fit."""
        self._prune()
        batch: list[_PendingPublication] = []
        free_bytes = self._config.batch_bytes
        for publication in self._queue:
            if publication.future.done():
                continue
            free_bytes -= publication.size_bytes + 1
            if len(batch) >= self._config.batch_messages or (batch and free_bytes < 0):
                break
            batch.append(publication)
        return batch

    def _apply_reply(self, batch: list[_PendingPublication], text: str) -> None:
        reply = parse_reply(PublishReply, text, partial=True)
        if len(reply.positions) != len(batch):
            # A refusal of the whole request raises its error here.
            parse_reply(PublishReply, text)
            raise FloorcastError(
                "malformed reply: wrong number of positions", code="client.protocol"
            )
        restarted: set[str] = set()
        for publication, outcome in zip(batch, reply.positions, strict=True):
            if isinstance(outcome, PublishedPosition):
                self._books.apply(*publication.message)
                if not publication.future.done():
                    publication.future.set_result(Position(epoch=outcome.epoch, seq=outcome.seq))
            elif not self._restart_book(publication, outcome.error.code, restarted):
                publication.fail(error_from_body(outcome.error))

    def _restart_book(
        self, publication: _PendingPublication, code: str, restarted: set[str]
    ) -> bool:
        """Let the first update of a book that the server lost carry the whole book.

        It stays in the queue, and so do later updates of the book. Returns False if the code is
        another one.
        """
        topic, data, kind = publication.message
        whole = self._books.whole(topic, data)
        if code != _SNAPSHOT_REQUIRED or kind == "snapshot" or whole is None:
            return False
        if topic not in restarted:
            restarted.add(topic)
            publication.encode({**publication.body, "data": whole, "type": "snapshot"})
        return True
