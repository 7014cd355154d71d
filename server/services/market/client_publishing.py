"""Publishes the messages of clients: validates each one alone, keeps their order."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from client_sdk.contract import ErrorCode, Publication, Scope
from client_sdk.contract.names import MAX_TOPIC_CHARACTERS
from server.access import AuthorizationRule, Principal, find_refusals
from server.core.errors import AccessError, FloorcastError
from server.core.limits.shares import Owner
from server.core.log.entries import Position
from server.core.market.topics import Topic
from server.core.wire.validation import fields_validator, invalid_request
from server.ports import Clock
from server.services.market.feed_publisher import MESSAGES_PER_TURN
from server.services.market.publishing import PublishingService

Outcome = Position | FloorcastError
_fields_of = fields_validator(Publication)
# A batch lets others go first after so long: most take less, and cost no task then.
_TURN_SECONDS = 0.001
# How many messages are published between two looks at the clock.
_MESSAGES_PER_LOOK = 8
_DEFAULTS: dict[str, Any] = _fields_of({"topic": "-", "data": {}})


class ClientPublishing:
    """Publishing on behalf of an authenticated client."""

    def __init__(
        self,
        publishing: PublishingService,
        clock: Clock,
        rule: AuthorizationRule | None = None,
    ) -> None:
        self._publishing = publishing
        self._clock = clock
        self._rule = rule or AuthorizationRule()

    async def publish(self, principal: Principal, messages: Iterable[object]) -> list[Outcome]:
        """Publish the valid messages; returns a position or an error for each message.

        Raises `AccessError` if the token lacks the publish scope.
        """
        principal.require(Scope.MARKET_PUBLISH)
        owner = Owner(principal.org, principal.user_id)
        messages = list(messages)
        refusals = await self._find_refusals(principal, messages)
        outcomes: list[Outcome] = []
        now = self._clock.monotonic
        turn_ends = now() + _TURN_SECONDS
        for count, message in enumerate(messages):
            if count % _MESSAGES_PER_LOOK == 0 and now() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = now() + _TURN_SECONDS
            try:
                fields, topic = _authorized(principal, message)
                if topic.name in refusals:
                    raise refusals[topic.name]
                position = await self._publishing.publish(
                    fields["topic"],
                    fields["data"],
                    kind=fields["type"],
                    user=fields["user"],
                    org=principal.org,
                    identifier=fields["id"],
                    owner=owner,
                    source_ts=fields["source_ts"],
                )
                outcomes.append(position)
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
                topics[_authorized(principal, message)[1].name] = None
        return await find_refusals(self._rule.check_publish, principal, topics)

    async def authorize(
        self, principal: Principal, messages: Iterable[object]
    ) -> list[dict[str, Any]]:
        """Validate messages; returns the fields of their `Publication`s.

        Raises a `FloorcastError` if the principal may not publish one.
        """
        checked = [_authorized(principal, message) for message in messages]
        if self._rule.asks_publish:
            topics = {topic.name: None for _, topic in checked}
            refusals = await find_refusals(self._rule.check_publish, principal, topics)
            for name in topics.keys() & refusals.keys():
                raise refusals[name]
        return [fields for fields, _ in checked]


def _authorized(principal: Principal, message: object) -> tuple[dict[str, Any], Topic]:
    """The fields of a valid message that the token allows, and its topic."""
    fields = _plain_fields(message)
    if fields is None:
        try:
            fields = _fields_of(message)
        except ValidationError as error:
            raise invalid_request(error) from None
    topic = Topic.parse(fields["topic"])
    if not _may_publish(principal, topic, fields["user"]):
        raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {topic.name}")
    return fields, topic


def _plain_fields(message: object) -> dict[str, Any] | None:
    """The fields of a message from JSON that has only a topic and data; None for any other.

    Most messages have no more. To validate them as a `Publication` costs a tenth of publishing.
    """
    if type(message) is not dict or len(message) != 2:
        return None
    topic, data = message.get("topic"), message.get("data")
    if type(topic) is not str or type(data) is not dict:
        return None
    if not 0 < len(topic) <= MAX_TOPIC_CHARACTERS:
        return None
    return {**_DEFAULTS, "topic": topic, "data": data}


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
