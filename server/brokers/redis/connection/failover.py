"""Watches the Sentinels for a failover, so that nodes leave the old master at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from server.brokers.redis.connection.address import Address
from server.brokers.redis.connection.client import CONNECTION_ERRORS, login_options
from server.tasks import TaskOwner, cancel_and_wait

logger = logging.getLogger(__name__)

# Before a replica is promoted, and when all Sentinels agree that it is the master.
_EVENTS = ("+failover-state-send-slaveof-noone", "+switch-master")
_RETRY_SECONDS = 1.0


class FailoverWatch:
    """Calls back when a failover begins and when it ends.

    The old master accepts writes for seconds more, which are then lost: leave it at once.
    """

    def __init__(
        self,
        address: Address,
        tasks: TaskOwner,
        on_failover: Callable[[], Awaitable[None]],
        *,
        timeout_seconds: float,
    ) -> None:
        self._address = address
        self._tasks = tasks
        self._on_failover = on_failover
        self._timeout_seconds = timeout_seconds
        self._watching: list[asyncio.Task[None]] = []
        self._is_forbidden = False

    def start(self) -> None:
        """Watch every Sentinel of the address; a no-op for other kinds of addresses."""
        if not self._address.service:
            return
        self._watching = [
            self._tasks.keep(partial(self._watch, host, port), f"floorcast-sentinel-{host}:{port}")
            for host, port in self._address.hosts
        ]

    async def stop(self) -> None:
        """Stop watching."""
        await cancel_and_wait(*self._watching)
        self._watching.clear()

    async def _watch(self, host: str, port: int) -> None:
        while True:
            try:
                await self._listen(host, port)
            except NoPermissionError:
                if not self._is_forbidden:
                    self._is_forbidden = True
                    logger.warning("the Sentinels do not let this account subscribe to failovers")
            except CONNECTION_ERRORS:
                pass
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self, host: str, port: int) -> None:
        """Follow the events of a Sentinel until its connection fails or it stops answering."""
        options = login_options(self._address, timeout_seconds=self._timeout_seconds)
        client = Redis(host=host, port=port, socket_timeout=None, **options)
        answered = True
        try:
            async with client.pubsub() as pubsub:
                await self._within_time(pubsub.subscribe(*_EVENTS))
                while True:
                    message = await pubsub.get_message(timeout=self._timeout_seconds)
                    if message is not None:
                        answered = True
                        if message["type"] == "message" and self._concerns(message["data"]):
                            await self._on_failover()
                    elif answered:
                        # A host that vanishes sends no end of its connection.
                        answered = False
                        await self._within_time(pubsub.ping())
                    else:
                        raise ConnectionError("the Sentinel does not answer")
        finally:
            await client.aclose()

    async def _within_time(self, request: Awaitable[object]) -> None:
        async with asyncio.timeout(self._timeout_seconds):
            await request

    def _concerns(self, data: bytes) -> bool:
        return self._address.service.encode() in data.split(b" ")
