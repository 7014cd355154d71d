"""Wills: keeps the last messages of users, and publishes them when their time has come."""

import asyncio
import logging
import secrets

import orjson

from client_sdk.contract import ErrorCode, Publication, Scope, WillRequest
from server.access import Principal
from server.core.counters import Counters
from server.core.errors import FloorcastError, RequestError
from server.core.occupancy.wills import Will
from server.ports import Occupancy
from server.services.market.client_publishing import ClientPublishing
from server.services.market.publishing import PublishingService
from server.tasks import TaskOwner, cancel_and_wait

logger = logging.getLogger(__name__)

# Wills that are published at the same time.
_MAX_CONCURRENT = 64
# Beyond these the next ones are due again a few seconds later.
_MAX_WAITING = 10_000
_TEMPORARY = (
    ErrorCode.SERVER_DRAINING,
    ErrorCode.SERVER_INTERNAL,
    ErrorCode.SERVER_OVERLOADED,
)


class WillService:
    """The wills of clients; each message has an id, so that none is published twice."""

    def __init__(
        self,
        occupancy: Occupancy,
        publishing: PublishingService,
        client_publishing: ClientPublishing,
        counters: Counters,
        tasks: TaskOwner,
        *,
        max_seconds: float,
    ) -> None:
        self._occupancy = occupancy
        self._publishing = publishing
        self._client_publishing = client_publishing
        self._counters = counters
        self._tasks = tasks
        self._max_ms = int(max_seconds * 1000)
        self._due: asyncio.Queue[Will] = asyncio.Queue(_MAX_WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to publish what is due."""
        self._task = self._tasks.keep(self._run, "floorcast-wills")

    async def stop(self) -> None:
        """Publish nothing more; what is due stays kept where the backend keeps it."""
        if self._task is not None:
            await cancel_and_wait(self._task)

    async def set(self, principal: Principal, request: WillRequest) -> None:
        """Set, replace or take back the will of a user.

        Raises a `FloorcastError` if the token does not allow one of the messages, if one is
        invalid, or if the org keeps too many wills.
        """
        principal.require(Scope.MARKET_PUBLISH)
        if request.messages is None:
            await self._occupancy.remove_will(principal.user)
            return
        if request.after_ms is None or request.after_ms > self._max_ms:
            raise RequestError(
                ErrorCode.REQUEST_INVALID, f"after_ms must be a time of at most {self._max_ms} ms"
            )
        will_id = secrets.token_hex(8)
        allowed = await self._client_publishing.authorize(principal, request.messages)
        publications = [
            self._check(publication, f"will-{will_id}-{number}")
            for number, publication in enumerate(allowed)
        ]
        # Bounded by the size of the event, and by the share of the org.
        encoded = orjson.dumps(publications)
        await self._occupancy.put_will(Will(*principal.user, will_id, request.after_ms, encoded))

    def _check(self, publication: Publication, default_id: str) -> dict[str, object]:
        self._publishing.check(
            publication.topic, publication.data, kind=publication.type, user=publication.user
        )
        return {**publication.model_dump(), "id": publication.id or default_id}

    def on_due(self, will: Will) -> None:
        """A will must be published now, by this node."""
        try:
            self._due.put_nowait(will)
        except asyncio.QueueFull:
            logger.error("too many wills are due: they are published later")

    async def _run(self) -> None:
        while True:
            wills = [await self._due.get()]
            while len(wills) < _MAX_CONCURRENT and not self._due.empty():
                wills.append(self._due.get_nowait())
            await asyncio.gather(*map(self._publish, wills))

    async def _publish(self, will: Will) -> None:
        try:
            for body in orjson.loads(will.messages):
                await self._publish_message(will, Publication.model_validate(body))
            await self._occupancy.settle_will(will)
        except FloorcastError as error:
            # It is due again soon, on this node or on another.
            logger.warning("a will waits for the broker", extra={"code": error.code.value})
            return
        self._counters.add("wills.published")
        logger.info("published a will", extra={"org": will.org, "after_ms": will.after_ms})

    async def _publish_message(self, will: Will, message: Publication) -> None:
        try:
            await self._publishing.publish(
                message.topic,
                message.data,
                kind=message.type,
                user=message.user,
                org=will.org,
                identifier=message.id,
                publisher=will.user_id,
                source_ts=message.source_ts,
            )
        except FloorcastError as error:
            if error.code in _TEMPORARY:
                raise
            # It can never be published; the other messages still can.
            self._counters.add("wills.refused")
            logger.error(
                "a message of a will was refused",
                extra={"topic": message.topic, "code": error.code.value},
            )
