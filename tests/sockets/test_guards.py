"""The pipeline: order and behaviour of the guards."""

import asyncio
import json
from typing import cast

import pytest
from pydantic import BaseModel

from client_sdk.contract import ConnectAuth, Subscribe
from server.access import Principal
from server.core.counters import Counters
from server.core.limits.events import EventLimits
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


def built_in(clock: ManualClock, counters: Counters | None = None) -> guards.BuiltInGuards:
    """The guards of `/market`, with one route."""
    counters = counters or Counters()
    route = Route(Subscribe, _call_no_route, items=lambda request: len(request.topics))
    return guards.BuiltInGuards(
        "/market",
        {"subscribe": route},
        Route(ConnectAuth, _call_no_route),
        verifier=verifier(clock),
        limits=EventLimits(per_second=0, burst=0),
        counters=counters,
        refusals=RefusalLog(clock, counters),
        clock=clock,
        anonymous_allowed=False,
        grace_seconds=5,
    )


async def _call_no_route(_: Call, request: BaseModel) -> Reply:
    raise AssertionError("a guard calls no route")


@pytest.mark.parametrize(("late", "accepted"), [(4.9, True), (5.0, False)])
async def test_expired_token_is_refused_after_the_grace_time(late: float, accepted: bool) -> None:
    clock = ManualClock()
    clock.advance(60 + late)
    reply = await built_in(clock).on_event(call({"topics": ["PRICE:A"]}), fine)
    assert isinstance(reply, dict)
    assert reply["ok"] is accepted
    if not accepted:
        assert reply["error"]["code"] == "auth.expired"


async def test_handler_gets_the_validated_model_and_the_principal() -> None:
    seen: list[tuple[BaseModel | None, str]] = []

    async def proceed(each: Call) -> Reply:
        seen.append((each.request, each.caller.user_id))
        return {"ok": True}

    await built_in(ManualClock()).on_event(call({"topics": ["PRICE:A"]}), proceed)
    assert seen == [(Subscribe(topics=["PRICE:A"]), "ann")]


async def test_validation_error_names_the_field_but_not_its_value() -> None:
    arguments = {"topics": ["a", 7], "secret": "hunter2"}
    reply = await built_in(ManualClock()).on_event(call(arguments), fine)
    assert isinstance(reply, dict)
    error = reply["error"]
    assert error["code"] == "request.invalid"
    assert error["message"].startswith("topics.1: ")
    assert {each["where"] for each in error["details"]["problems"]} == {"topics.1", "secret"}
    assert "hunter2" not in json.dumps(reply)


async def test_failure_of_a_handler_is_answered_with_an_incident_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counters = Counters()

    async def fail(_: Call) -> Reply:
        raise ZeroDivisionError("a secret detail")

    reply = await built_in(ManualClock(), counters).on_event(call({"topics": ["PRICE:A"]}), fail)
    assert isinstance(reply, dict)
    assert reply["error"]["code"] == "server.internal"
    assert "secret" not in json.dumps(reply)
    assert counters.events() == {("/market", "subscribe", "server.internal"): 1}
    incident = reply["error"]["details"]["incident"]
    assert incident in {getattr(each, "incident", None) for each in caplog.records}


async def test_unknown_events_are_refused_and_share_one_counter() -> None:
    counters = Counters()
    guard = built_in(ManualClock(), counters)
    for event in ("rubbish", "more rubbish"):
        reply = await guard.on_event(call(event=event), fine)
        assert isinstance(reply, dict)
        assert reply["error"]["code"] == "request.unknown_event"
    assert counters.events() == {("/market", "(unknown)", "request.unknown_event"): 2}


async def test_call_whose_connection_ended_counts_as_cancelled() -> None:
    counters = Counters()
    guard = built_in(ManualClock(), counters)

    async def wait(_: Call) -> Reply:
        await asyncio.Event().wait()
        return {}

    waiting = asyncio.ensure_future(guard.on_event(call({"topics": ["PRICE:A"]}), wait))
    await asyncio.sleep(0)
    waiting.cancel()
    # No reply: the connection has gone.
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert counters.events() == {("/market", "subscribe", "cancelled"): 1}
