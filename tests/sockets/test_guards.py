"""The pipeline: order and behaviour of the guards."""

import asyncio
import json
from typing import Any, cast

import pytest
from pydantic import BaseModel

from client_sdk.contract import Subscribe
from server.access import Principal
from server.core.counters import Counters
from server.core.errors import AccessError
from server.sockets import guards
from server.sockets.clients import JoinedClient
from server.sockets.pipeline import Call, Guard, Handler, Reply, Result, Route, assemble
from server.transport import Connection, RefusalLog
from tests.access.forge import verifier
from tests.kit.clock import START, ManualClock

NO_LINK = cast(Connection, None)


def call(*arguments: object, expires_at: float = START + 60, event: str = "subscribe") -> Call:
    """An event of a joined client."""
    principal = Principal("ann", "acme", frozenset(), expires_at)
    client = JoinedClient("c1", "/market", principal, NO_LINK)
    return Call("/market", event, "c1", NO_LINK, arguments, client)


async def fine(_: Call) -> Reply:
    return {"ok": True}


async def test_first_guard_is_the_outermost() -> None:
    seen: list[str] = []

    def named(name: str) -> Guard:
        async def guard(each: Call, proceed: Handler) -> Result:
            seen.append(name)
            return await proceed(each)

        return guard

    assert await assemble([named("a"), named("b")], fine)(call()) == {"ok": True}
    assert seen == ["a", "b"]


@pytest.mark.parametrize(("late", "accepted"), [(4.9, True), (5.0, False)])
async def test_expired_token_is_refused_after_the_grace_time(late: float, accepted: bool) -> None:
    clock = ManualClock()
    guard = guards.authentication(verifier(clock), clock, anonymous_allowed=False, grace_seconds=5)
    clock.advance(60 + late)
    if accepted:
        assert await guard(call(), fine) == {"ok": True}
    else:
        with pytest.raises(AccessError, match="expired"):
            await guard(call(), fine)


async def test_handler_gets_the_validated_model() -> None:
    seen: list[BaseModel | None] = []

    async def proceed(each: Call) -> Reply:
        seen.append(each.request)
        return {}

    guard = guards.validation({"subscribe": _unused()}, _unused())
    await guard(call({"topics": ["PRICE:A"]}), proceed)
    assert seen == [Subscribe(topics=["PRICE:A"])]


async def test_validation_error_names_the_field_but_not_its_value() -> None:
    guard = assemble(
        [
            guards.errors(RefusalLog(ManualClock(), Counters())),
            guards.validation({"subscribe": _unused()}, _unused()),
        ],
        fine,
    )
    reply = await guard(call({"topics": ["a", 7], "secret": "hunter2"}))
    assert isinstance(reply, dict)
    error = reply["error"]
    assert error["code"] == "request.invalid"
    assert error["message"].startswith("topics.1: ")
    assert {each["where"] for each in error["details"]["problems"]} == {"topics.1", "secret"}
    assert "hunter2" not in json.dumps(reply)


def _unused() -> Route[Subscribe]:
    async def handle(each: Call, request: Subscribe) -> Reply:
        raise AssertionError("a guard calls no route")

    return Route(Subscribe, handle)


async def test_cancellation_is_not_turned_into_a_reply() -> None:
    async def cancelled(_: Call) -> Any:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await assemble([guards.errors(RefusalLog(ManualClock(), Counters()))], cancelled)(call())


async def test_call_whose_connection_ended_counts_as_cancelled() -> None:
    counters, clock = Counters(), ManualClock()
    guard = guards.metrics(counters, clock, {"subscribe": _unused()})

    async def wait(_: Call) -> Reply:
        await asyncio.Event().wait()
        return {}

    waiting = asyncio.ensure_future(assemble([guard], wait)(call()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert counters.events() == {("/market", "subscribe", "cancelled"): 1}
