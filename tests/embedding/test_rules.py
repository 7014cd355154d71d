"""The application's rule, guards and authentication: they narrow, and never widen."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from client_sdk.contract import Scope
from floorcast.server import (
    AccessError,
    AuthRequest,
    Call,
    ErrorCode,
    LimitError,
    Principal,
    Proceed,
    Reply,
    authorize,
)
from tests.journeys.test_tokens import refusal
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, RunningServer, running

Check = Callable[[Principal, str], bool | Coroutine[Any, Any, bool]]
TOPICS = ["PRICE:A", "PRICE:B"]


def only(*names: str) -> Check:
    return lambda principal, name: name in names


async def only_in_time(principal: Principal, name: str) -> bool:
    async with asyncio.timeout(1):  # needs a task
        await asyncio.sleep(0)
    return name == "PRICE:A"


async def subscribe(node: RunningServer, **token: Any) -> dict[str, Any]:
    client = await RawClient.connect(node.port, node.token(**token))
    reply = await client.call("subscribe", {"topics": TOPICS})
    client.cut()
    return {topic: each.get("error", each) for topic, each in reply["topics"].items()}


@pytest.mark.parametrize("check", [only("PRICE:A"), only_in_time])
async def test_rule_refuses_a_topic_that_the_token_allows(check: Check) -> None:
    async with running(authorize=authorize(may_subscribe=check)) as node:
        replies = await subscribe(node)
        assert replies["PRICE:A"]["status"] == "CONNECTED"
        assert replies["PRICE:B"]["code"] == "auth.forbidden"


async def test_rule_cannot_allow_what_the_token_refuses() -> None:
    asked: list[str] = []

    def yes(principal: Principal, name: str) -> bool:
        asked.append(name)
        return True

    rule = authorize(may_subscribe=yes, may_publish=yes, may_join=yes)
    async with running(authorize=rule) as node:
        replies = await subscribe(node, symbols=["B"])
        assert replies["PRICE:A"]["code"] == "auth.forbidden"
        reader = await RawClient.connect(node.port, node.token(scopes=[Scope.MARKET_READ]))
        published = await reader.call("publish", {"messages": [{"topic": "PRICE:A", "data": {}}]})
        assert published["error"]["code"] == "auth.forbidden"
        reader.cut()
        session = await SessionClient.connect(node, "ann", sessions=["a"])
        assert (await session.call("join", session_id="b"))["error"]["code"] == "auth.forbidden"
        session.client.cut()
        assert asked == ["PRICE:B"], "it is asked only about what the token allows"


async def nothing(principal: Principal, name: str) -> Any:
    """A check whose author forgot to return."""


@pytest.mark.parametrize("check", [nothing, lambda principal, name: 1])
async def test_rule_that_does_not_return_true_refuses(check: Check) -> None:
    async with running(authorize=authorize(may_subscribe=check)) as node:
        assert {each["code"] for each in (await subscribe(node)).values()} == {"auth.forbidden"}


async def test_error_of_a_rule_reaches_the_client() -> None:
    def closed(principal: Principal, topic: str) -> bool:
        raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the office is closed")

    async with running(authorize=authorize(may_subscribe=closed)) as node:
        assert (await subscribe(node))["PRICE:A"]["message"] == "the office is closed"


async def test_rule_decides_each_published_message() -> None:
    async with running(authorize=authorize(may_publish=only("PRICE:A"))) as node:
        client = await RawClient.connect(node.port, node.token())
        messages = [{"topic": topic, "data": PRICE} for topic in TOPICS]
        reply = await client.call("publish", {"messages": messages})
        assert reply["positions"][0]["seq"] == 1
        assert reply["positions"][1]["error"]["code"] == "auth.forbidden"
        client.cut()


async def test_rule_decides_joins_also_at_connect() -> None:
    async with running(authorize=authorize(may_join=only("a"))) as node:
        client = await SessionClient.connect(node, "ann", "a")
        reply = await client.call("join", session_id="b")
        assert reply["error"]["code"] == "auth.forbidden"
        client.client.cut()
        refused = await RawClient.open(node.port)
        await refused.text()
        auth = {"token": node.token(), "session_id": "b"}
        assert await refusal(refused, auth, "/session") == "auth.forbidden"
        refused.cut()
        await node.until_empty()


async def test_rule_has_the_claims_and_is_asked_again_after_a_refresh() -> None:
    def by_claim(principal: Principal, name: str) -> bool:
        return principal.claims.get("symbols") == ["*"]

    async with running(authorize=authorize(may_subscribe=by_claim)) as node:
        client = await RawClient.connect(node.port, node.token(symbols=["*"]))
        assert (await client.call("subscribe", {"topics": TOPICS}))["ok"]
        reply = await client.call("refresh_token", {"token": node.token()})
        assert {each["error"]["code"] for each in reply["topics"].values()} == {"auth.forbidden"}
        assert (await client.call("subscriptions", {}))["topics"] == {}
        client.cut()


async def test_claims_are_kept_only_for_an_application_that_reads_them() -> None:
    async with running() as node:
        client = await RawClient.connect(node.port, node.token())
        [joined] = node.server.clients.context.clients()
        assert joined.principal.claims == {}
        client.cut()


async def test_guards_run_in_order_after_the_built_in_ones() -> None:
    seen: list[tuple[str, str, object]] = []

    def named(name: str) -> Callable[[Call, Proceed], Coroutine[Any, Any, Reply]]:
        async def guard(call: Call, proceed: Proceed) -> Reply:
            seen.append((name, call.event, call.request))
            return await proceed(call)

        return guard

    async with running(guards=[named("a"), named("b")]) as node:
        client = await RawClient.connect(node.port, node.token())
        assert not (await client.call("subscribe", {"topics": 7}))["ok"]
        assert (await client.call("subscriptions", {}))["ok"]
        client.cut()
        assert [(name, event) for name, event, _ in seen] == [
            ("a", "connect"),
            ("b", "connect"),
            ("a", "subscriptions"),
            ("b", "subscriptions"),
        ]
        assert all(request is not None for _, _, request in seen)


@pytest.mark.parametrize("event", ["connect", "subscriptions"])
async def test_guard_refuses_with_its_error(event: str) -> None:
    async def guard(call: Call, proceed: Proceed) -> Reply:
        reply = await proceed(call)
        if call.event == event:
            raise LimitError(ErrorCode.LIMIT_RATE, "not now")
        return reply

    async with running(guards=[guard]) as node:
        client = await RawClient.open(node.port)
        await client.text()
        if event == "connect":
            assert await refusal(client, {"token": node.token()}) == "limit.rate"
        else:
            await client.join(node.token())
            assert (await client.call(event, {}))["error"]["code"] == "limit.rate"
        client.cut()
        await node.until_empty()


async def test_guard_that_does_not_proceed_lets_nobody_in() -> None:
    async def guard(call: Call, proceed: Proceed) -> Reply:
        return {"ok": True}

    async with running(guards=[guard]) as node:
        client = await RawClient.open(node.port)
        await client.text()
        assert await refusal(client, {"token": node.token()}) == "auth.forbidden"
        client.cut()


async def test_own_authentication_replaces_tokens() -> None:
    async def authenticate(token: str) -> Principal | None:
        async with asyncio.timeout(1):  # needs a task
            await asyncio.sleep(0)
        if token != "key-7":
            return None
        scopes = frozenset({Scope.MARKET_READ.value})
        return Principal("ann", "acme", scopes, expires_at=2e9, claims={"desk": "fx"})

    rule = authorize(may_subscribe=lambda principal, _: principal.claims["desk"] == "fx")
    async with running(authenticate=authenticate, authorize=rule) as node:
        client = await RawClient.open(node.port)
        await client.text()
        assert await refusal(client, {"token": node.token()}) == "auth.invalid"
        assert await refusal(client, {}) == "auth.missing"
        welcome = await client.join("key-7")
        assert (welcome["user_id"], welcome["org"]) == ("ann", "acme")
        assert (await client.call("subscribe", {"topics": TOPICS}))["ok"]
        client.cut()


async def test_authentication_may_go_by_the_request_instead_of_a_token() -> None:
    asked: list[tuple[str | None, str, dict[str, object]]] = []

    async def authenticate(token: str | None, request: AuthRequest) -> Principal | None:
        asked.append((token, request.namespace, dict(request.auth)))
        assert request.address == "127.0.0.1"
        if request.headers.get("cookie") != "session=7":
            return None
        return Principal("ann", "acme", frozenset({"session:join"}), expires_at=2e9)

    async with running(authenticate=authenticate) as node:
        client = await RawClient.open(node.port, headers="Cookie: session=7\r\n")
        await client.text()
        assert (await client.join(None, namespace="/session", desk="fx"))["user_id"] == "ann"
        reply = await client.call("refresh_token", {"token": "k"}, namespace="/session")
        assert reply["ok"]
        assert asked == [
            (None, "/session", {"recovery": False, "desk": "fx"}),
            ("k", "/session", {"token": "k"}),
        ]
        stranger = await RawClient.open(node.port)
        await stranger.text()
        assert await refusal(stranger, {}, namespace="/session") == "auth.missing"
        assert await refusal(stranger, {"token": "x"}, namespace="/session") == "auth.invalid"
        client.cut()
        stranger.cut()


@pytest.mark.parametrize("own", [False, True], ids=["JSON Web Token", "one argument"])
async def test_headers_of_a_connection_are_kept_only_if_they_are_read(own: bool) -> None:
    principal = Principal("ann", "acme", frozenset({"market:read"}), expires_at=2e9)

    def authenticate(token: str, cache: object = None) -> Principal:
        assert cache is None
        return principal

    async with running(authenticate=authenticate if own else None) as node:
        client = await RawClient.connect(node.port, node.token())
        [connection] = node.server.sockets.connections()
        assert not connection.request.headers
        client.cut()


@pytest.mark.parametrize("principal", [True, Principal("", "o", frozenset(), 2e9)])
async def test_authentication_that_returns_no_principal_refuses(principal: Any) -> None:
    async with running(authenticate=lambda token: principal) as node:
        client = await RawClient.open(node.port)
        await client.text()
        assert await refusal(client, {"token": "x"}) == "server.internal"
        client.cut()


@pytest.mark.parametrize("namespace", ["/market", "/session"])
async def test_connection_that_the_rule_now_forbids_is_not_resumed(namespace: str) -> None:
    allowed = {"PRICE:A", "room"}
    async with running(
        authorize=authorize(
            may_subscribe=lambda _, name: name in allowed, may_join=lambda _, name: name in allowed
        )
    ) as node:
        client = await RawClient.open(node.port)
        await client.text()
        pid = await joined_pid(client, node.token(), namespace)
        if namespace == "/market":
            await client.call("subscribe", {"topics": ["PRICE:A"]})
        else:
            await client.call("join", {"session_id": "room"}, namespace=namespace)
        client.cut()
        await until(lambda: len(node.server.clients.registry) == 0)
        allowed.clear()
        back = await RawClient.open(node.port)
        await back.text()
        assert await joined_pid(back, node.token(), namespace, pid=pid) != pid
        back.cut()


async def joined_pid(client: RawClient, token: str, namespace: str, **auth: object) -> str:
    """Connect with recovery; returns the pid."""
    client.send(f"40{namespace},{json.dumps({'token': token, **auth})}")
    answer = await client.text()
    assert answer.startswith(f"40{namespace},"), answer
    return str(json.loads(answer[answer.index("{") :])["pid"])


async def test_failing_rule_refuses_and_leaves_no_channel_open() -> None:
    refused = set[str]()

    def may_subscribe(principal: Principal, topic: str) -> bool:
        if topic == "PRICE:B" and refused:
            raise KeyError(topic)
        return topic not in refused

    async with running(authorize=authorize(may_subscribe=may_subscribe)) as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:A", "PRICE:B"]})
        refused.add("PRICE:A")
        reply = await client.call("refresh_token", {"token": node.token()})
        codes = {topic: each["error"]["code"] for topic, each in reply["topics"].items()}
        assert codes == {"PRICE:A": "auth.forbidden", "PRICE:B": "server.internal"}
        assert (await client.call("subscriptions", {}))["topics"] == {}
        client.cut()
        await node.until_empty()
