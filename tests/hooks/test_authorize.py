"""The authorize webhook is asked after the built-in checks, and can only refuse more."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from client_sdk.contract import Scope
from floorcast.server import Principal, authorize
from tests.journeys.test_tokens import refusal
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running
from tests.kit.server.webhook import SECRET, Webhook, webhook

ALLOW_LONG = {"allow": True, "ttl_seconds": 60}


def settings(hook: Webhook, *actions: str, **more: object) -> Mapping[str, object]:
    named = {name.replace("__", "."): value for name, value in more.items()}
    return {
        "hooks.authorize_url": hook.url,
        "hooks.secret": SECRET,
        "hooks.authorize": actions,
        **named,
    }


async def subscribe(client: RawClient, *topics: str) -> list[Any]:
    reply = await client.call("subscribe", {"topics": topics})
    return [each.get("error", each) for each in reply["topics"].values()]


async def refused_connect(node: RunningServer) -> str:
    client = await RawClient.open(node.port)
    await client.text()
    code = await refusal(client, {"token": node.token()})
    client.cut()
    return code


def counted(node: RunningServer, outcome: str) -> int:
    return node.server.counters.total(f"hooks.authorize_{outcome}")


async def test_webhook_is_asked_about_each_action() -> None:
    actions = ("connect", "subscribe", "join", "publish")
    async with webhook() as hook, running(settings(hook, *actions)) as node:
        client = await RawClient.connect(node.port, node.token())
        await subscribe(client, "PRICE:A")
        await client.call("publish", {"messages": [{"topic": "PRICE:A", "data": PRICE}]})
        member = await SessionClient.connect(node, "ann")
        await member.call("join", session_id="room")
        asked = [{**each, "claims": each["claims"]["sub"]} for each in hook.bodies]
        common = {"user_id": "ann", "org": "default", "claims": "ann"}
        assert asked == [
            {"action": "connect", "namespace": "/market", **common},
            {"action": "subscribe", "topic": "PRICE:A", **common},
            {"action": "publish", "topic": "PRICE:A", **common},
            {"action": "connect", "namespace": "/session", **common},
            {"action": "join", "session_id": "room", **common},
        ]
        client.cut()
        member.client.cut()


async def test_webhook_is_not_asked_about_what_the_token_refuses() -> None:
    async with webhook() as hook, running(settings(hook, "subscribe", "publish")) as node:
        token = node.token(scopes=[Scope.MARKET_READ], symbols=["B"])
        client = await RawClient.connect(node.port, token)
        [error] = await subscribe(client, "PRICE:A")
        assert error["code"] == "auth.forbidden"
        reply = await client.call("publish", {"messages": [{"topic": "PRICE:A", "data": PRICE}]})
        assert reply["error"]["code"] == "auth.forbidden"
        assert hook.bodies == []
        client.cut()


async def test_refusal_has_the_code_and_message_of_the_answer() -> None:
    async with webhook() as hook, running(settings(hook, "connect", "subscribe")) as node:
        client = await RawClient.connect(node.port, node.token())
        hook.answer = {"allow": False, "code": "limit.share", "message": "upgrade your plan"}
        [error] = await subscribe(client, "PRICE:A")
        assert (error["code"], error["message"]) == ("limit.share", "upgrade your plan")
        hook.answer = {"allow": False, "code": "not.a.code"}
        [error] = await subscribe(client, "PRICE:A")
        assert error["code"] == "auth.forbidden"
        assert await refused_connect(node) == "auth.forbidden"
        client.cut()


@pytest.mark.parametrize("allow", [True, False])
async def test_answer_is_cached_for_its_time(allow: bool) -> None:
    async with webhook() as hook, running(settings(hook, "subscribe")) as node:
        hook.answer = {"allow": allow, "ttl_seconds": 60}
        client = await RawClient.connect(node.port, node.token())
        for _ in range(3):
            [reply] = await subscribe(client, "PRICE:A")
            assert (reply.get("status") == "CONNECTED") is allow
        assert len(hook.bodies) == 1
        await subscribe(client, "PRICE:B")
        assert len(hook.bodies) == 2
        node.clock.advance(61)
        await subscribe(client, "PRICE:A")
        assert len(hook.bodies) == 3
        client.cut()


async def test_answer_without_a_time_is_not_cached() -> None:
    async with webhook() as hook, running(settings(hook, "subscribe")) as node:
        client = await RawClient.connect(node.port, node.token())
        for _ in range(2):
            await subscribe(client, "PRICE:A")
        assert len(hook.bodies) == 2
        client.cut()


async def test_cache_is_bounded() -> None:
    async with webhook() as hook:
        flags = settings(hook, "subscribe", hooks__authorize_cache=2)
        async with running(flags) as node:
            hook.answer = ALLOW_LONG
            client = await RawClient.connect(node.port, node.token())
            for each in "ABC":
                await subscribe(client, f"PRICE:{each}")
            await subscribe(client, "PRICE:B", "PRICE:C")
            assert len(hook.bodies) == 3
            await subscribe(client, "PRICE:A")
            assert len(hook.bodies) == 4
            client.cut()


async def test_topics_of_one_request_are_asked_together_and_bounded() -> None:
    names = [f"PRICE:S{number:02}" for number in range(40)]
    async with webhook() as hook, running(settings(hook, "subscribe", "publish")) as node:
        client = await RawClient.connect(node.port, node.token())
        hook.gate.clear()
        asking = asyncio.create_task(client.call("subscribe", {"topics": names}))
        await until(lambda: hook.open_requests == 16)
        hook.gate.set()
        reply = await asking
        assert list(reply["topics"]) == names
        assert sorted(each["topic"] for each in hook.bodies) == names
        hook.gate.clear()
        hook.bodies.clear()
        messages = [{"topic": name, "data": PRICE} for name in (*names, *names)]
        asking = asyncio.create_task(client.call("publish", {"messages": messages}))
        await until(lambda: hook.open_requests == 16)
        hook.gate.set()
        while "positions" not in (reply := await asking):
            pass
        assert [each["seq"] for each in reply["positions"]] == [1] * 40 + [2] * 40
        assert len(hook.bodies) == 40
        client.cut()


async def test_topic_gets_the_room_of_a_refused_one() -> None:
    async with webhook() as hook:
        flags = settings(hook, "subscribe", limits__topics_per_connection=1)
        async with running(flags) as node:
            client = await RawClient.connect(node.port, node.token())
            hook.answers = {"PRICE:A": {"allow": False}}
            refused, granted = await subscribe(client, "PRICE:A", "PRICE:B")
            assert refused["code"] == "auth.forbidden"
            assert granted["status"] == "CONNECTED"
            assert [each["topic"] for each in hook.bodies] == ["PRICE:A", "PRICE:B"]
            client.cut()


async def test_equal_questions_share_one_request() -> None:
    async with webhook() as hook, running(settings(hook, "subscribe")) as node:
        hook.gate.clear()
        token = node.token()
        clients = [await RawClient.connect(node.port, token) for _ in range(5)]
        waiting = [asyncio.create_task(subscribe(each, "PRICE:A")) for each in clients]
        await until(lambda: hook.open_requests)
        await until(lambda: all(each.busy for each in node.server.sockets.connections()))
        # The question of one that leaves is still that of the others.
        clients[0].cut()
        waiting[0].cancel()
        await until(lambda: len(node.server.clients.context.clients()) == 4)
        hook.gate.set()
        for each in waiting[1:]:
            [reply] = await each
            assert reply["status"] == "CONNECTED"
        assert len(hook.bodies) == 1
        for client in clients:
            client.cut()


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, {"allow": True}),
        (307, {"allow": True}),
        (200, "no JSON"),
        (200, {"allow": "yes"}),
        (200, {"allow": 1}),
        (200, {}),
        (200, {"allow": True, "ttl_seconds": -1}),
        (200, "x" * 70_000),
    ],
)
async def test_bad_answer_refuses(status: int, answer: object) -> None:
    async with webhook() as hook, running(settings(hook, "subscribe")) as node:
        hook.status, hook.answer = status, answer
        hook.headers = {"Location": "/"} if status == 307 else {}
        client = await RawClient.connect(node.port, node.token())
        [error] = await subscribe(client, "PRICE:A")
        assert (error["code"], error["retry_after_ms"]) == ("auth.unavailable", 1000)
        assert counted(node, "unavailable") == 1
        # It has answered: the next question is asked.
        hook.status, hook.answer = 200, {"allow": True}
        [reply] = await subscribe(client, "PRICE:A")
        assert reply["status"] == "CONNECTED"
        client.cut()


async def test_webhook_without_an_answer_refuses_and_is_left_alone_for_a_second() -> None:
    async with webhook() as hook:
        flags = settings(hook, "connect", "subscribe", hooks__authorize_timeout_seconds=0.1)
        async with running(flags) as node:
            client = await RawClient.connect(node.port, node.token())
            hook.gate.clear()
            errors = await subscribe(client, *(f"PRICE:A{each}" for each in range(50)))
            assert {each["code"] for each in errors} == {"auth.unavailable"}
            # The connect, and those that were asked together; the others are refused at once.
            assert len(hook.bodies) == 1 + 16
            assert await refused_connect(node) == "auth.unavailable"
            assert len(hook.bodies) == 1 + 16
            hook.gate.set()
            node.clock.advance(1.1)
            [reply] = await subscribe(client, "PRICE:A0")
            assert reply["status"] == "CONNECTED"
            client.cut()


async def test_application_rule_is_asked_first() -> None:
    def only_a(principal: Principal, topic: str) -> bool:
        return topic == "PRICE:A"

    rule = authorize(may_subscribe=only_a)
    async with webhook() as hook, running(settings(hook, "subscribe"), authorize=rule) as node:
        client = await RawClient.connect(node.port, node.token())
        replies = await subscribe(client, "PRICE:A", "PRICE:B")
        assert [each.get("code") for each in replies] == [None, "auth.forbidden"]
        assert [each["topic"] for each in hook.bodies] == ["PRICE:A"]
        client.cut()
