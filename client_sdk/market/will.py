"""The client's will: sent now, and again on every new connection."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial

from client_sdk.config import ClientConfig
from client_sdk.connection.namespaces import Namespace, Worker
from client_sdk.connection.packets import encode, parse_reply
from client_sdk.contract import Reply
from client_sdk.errors import FloorcastError, SendTimeout, is_retryable
from client_sdk.market.decimals import with_decimal_text

logger = logging.getLogger(__name__)

_TAKEN_BACK = '{"messages":null}'


class WillSender:
    """Sends the newest will; the server takes back the one before when the client reconnects."""

    def __init__(self, namespace: Namespace, config: ClientConfig) -> None:
        self._namespace = namespace
        self._config = config
        self._request: str | None = None
        # The calls that wait for the server's reply.
        self._waiting: list[asyncio.Future[None]] = []
        self._worker = Worker("will", namespace, self._send)

    async def set(
        self, messages: Sequence[Mapping[str, object]] | None, after_ms: int, timeout: float | None
    ) -> None:
        """Set, replace or take back the will; returns once the server has it."""
        self._namespace.require_usable()
        request = _TAKEN_BACK
        if messages is not None:
            request = encode({"after_ms": after_ms, "messages": [*map(_message, messages)]})
        self._namespace.request_join()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._waiting.append(done)
        self._worker.wake()
        seconds = self._config.send_seconds if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                await done
        except TimeoutError:
            raise SendTimeout(f"the will was not acknowledged within {seconds:g} s") from None

    def on_join(self) -> None:
        """Set the will again: a new connection has taken it back."""
        if self._request is not None:
            self._worker.wake()

    def fail(self, error: FloorcastError) -> None:
        """Fail the calls that wait."""
        self._request = None
        self._settle(self._take_waiting(), error)

    async def close(self) -> None:
        """End its task; the server keeps the will."""
        await self._worker.close()

    async def _send(self) -> None:
        request = self._request
        if request is None:
            return
        waiting = self._take_waiting()
        try:
            await self._namespace.request("will", request, partial(parse_reply, Reply))
        except FloorcastError as error:
            if is_retryable(error):
                self._waiting[:0] = waiting
                raise
            self._forget(request)
            logger.warning("the server refused the will: %s", error, extra={"code": error.code})
            self._settle(waiting, error)
            return
        if request == _TAKEN_BACK:
            self._forget(request)
        self._settle(waiting, None)

    def _forget(self, request: str) -> None:
        if self._request is request:
            self._request = None

    def _take_waiting(self) -> list[asyncio.Future[None]]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _settle(self, waiting: list[asyncio.Future[None]], error: FloorcastError | None) -> None:
        for done in waiting:
            if done.done():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error.clone())


def _message(message: Mapping[str, object]) -> dict[str, object]:
    topic, data = message.get("topic"), message.get("data")
    if isinstance(topic, str) and isinstance(data, Mapping):
        return {**message, "data": with_decimal_text(topic, data)}
    return dict(message)
