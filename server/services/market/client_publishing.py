"""Publishes the messages of clients: validates each one alone, keeps their order."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from pydantic import ValidationError

from client_sdk.contract import ErrorCode, Publication, Scope
from server.access import AuthorizationRule, Principal, find_refusals
from server.core.errors import AccessError, FloorcastError
from server.core.log.entries import Position
from server.core.market.topics import Topic
from server.core.wire.validation import invalid_request
from server.services.market.feed_publisher import MESSAGES_PER_TURN
from server.services.market.publishing import PublishingService

Outcome = Position | FloorcastError
# The validator itself: `model_validate` costs half as much again.
_validate: Callable[[object], Publication] = Publication.__pydantic_validator__.validate_python


class ClientPublishing:
    """Publishing on behalf of an authenticated client."""

    def __init__(
        self, publishing: PublishingService, rule: AuthorizationRule | None = None
    ) -> None:
        self._publishing = publishing
        self._rule = rule or AuthorizationRule()

    async def publish(self, principal: Principal, messages: Iterable[object]) -> list[Outcome]:
        """Publish the valid messages; returns a position or an error for each message.

        Raises `AccessError` if the token lacks the publish scope.
        """
        principal.require(Scope.MARKET_PUBLISH)
        messages = list(messages)
        refusals = await self._find_refusals(principal, messages)
        outcomes: list[Outcome] = []
        for count, message in enumerate(messages, 1):
            if count % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
            try:
                outcomes.append(await self._publish_one(principal, message, refusals))
            except FloorcastError as error:
                # The traceback would keep the data of every refused message of the batch.
                outcomes.append(error.with_traceback(None))
        return outcomes

    async def _find_refusals(
        self, principal: Principal, messages: Iterable[object]
    ) -> dict[str, FloorcastError]:
        """The topics of valid messages to which the rule does not let the principal publish."""
        if not self._rule.asks_publish:
            return {}
        topics: dict[str, None] = {}
        for count, message in enumerate(messages, 1):
            if count % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
            with suppress(FloorcastError):
                topics[self._validate(principal, message)[1].name] = None
        return await find_refusals(self._rule.check_publish, principal, topics)

    async def _publish_one(
        self, principal: Principal, message: object, refusals: Mapping[str, FloorcastError]
    ) -> Position:
        publication, topic = self._validate(principal, message)
        if topic.name in refusals:
            raise refusals[topic.name]
        return await self._publishing.publish(
            publication.topic,
            publication.data,
            kind=publication.type,
            user=publication.user,
            org=principal.org,
            identifier=publication.id,
            publisher=principal.user_id,
            source_ts=publication.source_ts,
        )

    async def authorize(
        self, principal: Principal, messages: Iterable[object]
    ) -> list[Publication]:
        """Validate messages; raises a `FloorcastError` if the principal may not publish one."""
        checked = [self._validate(principal, message) for message in messages]
        if self._rule.asks_publish:
            topics = {topic.name: None for _, topic in checked}
            refusals = await find_refusals(self._rule.check_publish, principal, topics)
            for name in topics.keys() & refusals.keys():
                raise refusals[name]
        return [publication for publication, _ in checked]

    def _validate(self, principal: Principal, message: object) -> tuple[Publication, Topic]:
        """Validate a message, and check whether the token allows it."""
        try:
            publication = _validate(message)
        except ValidationError as error:
            raise invalid_request(error) from None
        topic = Topic.parse(publication.topic)
        if not _may_publish(principal, topic, publication.user):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {topic.name}")
        return publication, topic


def _may_publish(principal: Principal, topic: Topic, user: str | None) -> bool:
    if topic.symbol is not None:
        return principal.may_use_symbol(topic.symbol)
    # Without a user the message is malformed, and refused as such.
    return user is None or principal.may_publish_to(user)


def publish_reply(outcomes: list[Outcome]) -> dict[str, object]:
    """The reply to `publish`: `ok` if every message has a position, else the first error."""
    positions: list[dict[str, object]] = []
    first_error: dict[str, object] | None = None
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Position):
            positions.append(outcome.body())
            continue
        error = outcome.body()
        positions.append({"error": error})
        if first_error is None:
            first_error = {**error, "details": {**(outcome.details or {}), "index": index}}
    if first_error is None:
        return {"ok": True, "positions": positions}
    return {"ok": False, "error": first_error, "positions": positions}
