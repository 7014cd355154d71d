"""Publishes a source's messages: waits for a broker that is away, skips what is refused."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError
from server.feeds.sources.messages import SourceMessage, UnreadableMessage
from server.ports import Clock, Publishing

logger = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[object]]

# Publishing the same message later can succeed.
_PASSING = frozenset((ErrorCode.SERVER_OVERLOADED, ErrorCode.SERVER_DRAINING, ErrorCode.LIMIT_RATE))
_FIRST_PAUSE_SECONDS = 0.05
_MAX_PAUSE_SECONDS = 2.0
# A source full of bad messages must not fill the log.
_LOG_SECONDS = 10.0


class Relay:
    """Publishes messages one after the other, in the order of the source."""

    def __init__(
        self, name: str, publishing: Publishing, clock: Clock, *, sleep: Sleep = asyncio.sleep
    ) -> None:
        self._name = name
        self._publishing = publishing
        self._clock = clock
        self._sleep = sleep
        self._logged_at: float | None = None
        # Messages that can never be published.
        self.skipped = 0

    async def publish(
        self, read: Callable[[], SourceMessage], offset: str, *, once: bool = True
    ) -> None:
        """Publish a message, however long the broker is away; skip it if it is refused for good.

        After this returns the source may forget the message. With `once`, the offset is its id: a
        source that sends it again does not publish it again.
        """

        async def send() -> None:
            message = read()
            await self._publishing.publish(
                message.topic,
                message.data,
                kind=message.kind,
                user=message.user,
                org=message.org,
                source_ts=message.source_ts,
                identifier=offset if once else None,
            )

        await self.attempt(send, offset)

    async def attempt(self, send: Callable[[], Awaitable[None]], offset: str) -> None:
        """Call `send` until the broker is there; skip what is refused for good."""
        try:
            await self._until_accepted(send)
        except UnreadableMessage as error:
            self._skip(offset, str(error))
        except FloorcastError as error:
            self._skip(offset, f"{error.message} ({error.code.value})")

    async def _until_accepted(self, send: Callable[[], Awaitable[None]]) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await send()
            except FloorcastError as error:
                if error.code not in _PASSING:
                    raise
                await self._sleep(pause)
                pause = min(2 * pause, _MAX_PAUSE_SECONDS)
            else:
                return

    def _skip(self, offset: str, reason: str) -> None:
        self.skipped += 1
        now = self._clock.monotonic()
        if self._logged_at is None or now - self._logged_at >= _LOG_SECONDS:
            self._logged_at = now
            fields = {"feed": self._name, "offset": offset, "skipped": self.skipped}
            logger.warning("a message of a source is skipped: %s", reason, extra=fields)
