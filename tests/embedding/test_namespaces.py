"""The application's own namespaces: typed events, rooms, recovery, limits and slow consumers."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import socketio

from floorcast.server import Call, Namespace, Principal, Settings, create_app, on
from tests.embedding.desk import Desk, Watch
from tests.journeys.test_tokens import refusal
from tests.kit.clients.recovering import RecoveringClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.in_process import SECRET, RunningServer, running
from tests.kit.server.nodes import nodes

DESK = "/desk"


@asynccontextmanager
async def desk_server(**settings: Any) -> AsyncIterator[RunningServer]:
    async with running(settings, namespaces=[Desk()]) as node:
        yield node


async def trader(node: RunningServer, user: str = "ann", **token: Any) -> RawClient:
    return await RawClient.connect(node.port, node.token(user, **token), namespace=DESK)


async def call(client: RawClient, event: str, **payload: object) -> Any:
    return await client.call(event, payload, namespace=DESK)


async def test_event_reaches_its_typed_handler_and_the_room() -> None:
    async with desk_server() as node:
        ann, bob = await trader(node), await trader(node, "bob")
        assert await call(bob, "watch", room="fx") == {"ok": True}
        assert await call(ann, "order", room="fx", quantity=5) == {"ok": True, "seq": 1}
        assert await bob.event() == ("order", {"user": "ann", "quantity": 5})
        await call(bob, "unwatch", room="fx")
        await call(ann, "order", room="fx", quantity=6)
        await call(ann, "order", room="everybody", quantity=7)
        assert await bob.event() == ("order", {"user": "ann", "quantity": 7})
        ann.cut()
        bob.cut()
        await node.until_empty()


@pytest.mark.parametrize(
    ("event", "payload", "code"),
    [
        ("order", {"room": "fx", "quantity": 0}, "request.invalid"),
        ("order", {"room": "fx", "quantity": 1, "more": 1}, "request.invalid"),
        ("not_an_event", {"room": "fx"}, "request.unknown_event"),
        ("on_connect", {}, "request.unknown_event"),
        ("broadcast", {}, "request.unknown_event"),
        ("subscribe", {"topics": ["PRICE:A"]}, "request.unknown_event"),
    ],
)
async def test_only_valid_marked_events_are_callable(
    event: str, payload: dict[str, object], code: str
) -> None:
    async with desk_server() as node:
        client = await trader(node)
        assert (await call(client, event, **payload))["error"]["code"] == code
        client.cut()


async def test_namespace_admits_only_authenticated_clients_that_it_accepts() -> None:
    async with desk_server(**{"auth.market_optional": True}) as node:
        client = await RawClient.open(node.port)
        await client.text()
        assert await refusal(client, {}, DESK) == "auth.missing"
        assert await refusal(client, {"token": node.token("mallory")}, DESK) == "auth.forbidden"
        client.cut()
        await node.until_empty()


async def test_room_of_one_org_does_not_reach_another() -> None:
    async with desk_server() as node:
        ann, eve = await trader(node), await trader(node, "eve", org="other")
        for each in (ann, eve):
            await call(each, "watch", room="fx")
        await call(ann, "order", room="fx", quantity=5)
        other = await trader(node, "oz", org="other")
        await call(other, "order", room="fx", quantity=1)
        assert (await eve.event())[1]["user"] == "oz"
        for each in (ann, eve, other):
            each.cut()


async def test_namespace_has_the_limits_of_events_and_rooms() -> None:
    settings = {"limits.topics_per_connection": 2, "limits.event_burst": 4}
    async with desk_server(**settings) as node:
        client = await trader(node)
        assert (await call(client, "watch", room="a"))["ok"]
        assert (await call(client, "watch", room="a"))["ok"], "it is in this room already"
        assert (await call(client, "watch", room="b"))["error"]["code"] == "limit.topics"
        assert (await call(client, "watch", room="bad name"))["error"]["code"] == "request.invalid"
        assert (await call(client, "watch", room="a"))["error"]["code"] == "limit.rate"
        client.cut()


async def cut_and_order(node: RunningServer) -> RecoveringClient:
    """Cut a client off a room, and place orders there meanwhile."""
    client = RecoveringClient(node, "ann", DESK)
    await client.connect()
    await client.call("watch", room="fx")
    bob = await trader(node, "bob")
    await call(bob, "order", room="fx", quantity=1)
    assert (await client.next())[1]["quantity"] == 1
    await client.cut()
    for quantity in (2, 3):
        await call(bob, "order", room="fx", quantity=quantity)
    bob.cut()
    return client


async def test_client_recovers_its_rooms_and_what_it_missed() -> None:
    async with desk_server() as node:
        client = await cut_and_order(node)
        missed = await client.connect()
        assert client.recovered
        assert [body["quantity"] for _, body in missed] == [2, 3]
        assert (await client.call("order", room="fx", quantity=4))["seq"] == 4
        await client.cut()


async def test_client_recovers_its_rooms_on_another_node(shared_redis: RedisServer) -> None:
    async with nodes(shared_redis, 2, lambda: {"namespaces": [Desk()]}) as [one, two]:
        client = await cut_and_order(one)
        client.node = two
        missed = await client.connect()
        assert client.recovered
        assert [body["quantity"] for _, body in missed] == [2, 3]
        eve = await trader(one, "eve")
        await call(eve, "order", room="fx", quantity=4)
        assert (await client.next())[1]["quantity"] == 4
        await client.cut()
        eve.cut()


async def test_resuming_client_must_still_be_allowed_in_its_rooms() -> None:
    desk = Desk()
    async with running(namespaces=[desk]) as node:
        client = await cut_and_order(node)
        desk.closed_rooms.add("fx")
        assert await client.connect() == []
        assert not client.recovered
        await client.cut()


async def test_refreshed_token_is_checked_in_each_room() -> None:
    desk = Desk()
    async with running(namespaces=[desk]) as node:
        client = await trader(node)
        await call(client, "watch", room="fx")
        desk.closed_rooms.add("fx")
        await desk.broadcast("fx", "order", {"before": True})
        client.send(f"42{DESK},1{json.dumps(['refresh_token', {'token': node.token()}])}")
        assert await client.event() == ("order", {"before": True})
        event, error = await client.event()
        assert (event, error["code"]) == ("error", "auth.forbidden")
        assert error["details"] == {"room": "fx"}
        reply = json.loads((await client.text()).removeprefix(f"43{DESK},1"))[0]
        assert reply["ok"]
        assert reply["rooms"] == {"fx": {"status": "ERROR", "error": error}}
        [joined] = node.server.clients.context.clients()
        assert desk.rooms_of(joined.connection_id) == ("everybody",)
        await desk.broadcast("fx", "order", {"before": False})
        await desk.broadcast("everybody", "order", {"last": True})
        assert await client.event() == ("order", {"last": True})
        client.cut()


async def test_check_of_a_room_that_never_answers_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.embedding.namespaces._MAX_SECONDS", 0.01)

    class Undecided(Desk):
        async def may_stay(self, principal: Principal, room: str) -> bool:
            await asyncio.Event().wait()
            return True

    async with running(namespaces=[desk := Undecided()]) as node:
        client = await trader(node)
        reply = await call(client, "refresh_token", token=node.token())
        assert list(reply["rooms"]) == ["everybody"]
        [joined] = node.server.clients.context.clients()
        assert desk.rooms_of(joined.connection_id) == ()
        client.cut()


async def test_slow_client_is_disconnected_instead_of_missing_a_broadcast() -> None:
    settings = {"delivery.buffer_bytes": 64 * 1024, "delivery.backlog_messages": 10}
    async with running(settings, namespaces=[desk := Desk()]) as node:
        client = await trader(node)
        client.pause_reading()
        text = "x" * 60_000
        for _ in range(400):
            await desk.broadcast("everybody", "order", {"text": text})
            await asyncio.sleep(0)
        client.resume_reading()
        await client.until_closed()
        await until(lambda: len(node.server.clients.registry) == 0)
        client.cut()


async def test_broadcasts_count_to_the_share_of_their_org() -> None:
    settings = {"shares.history_bytes_per_org": 3000}
    async with running(settings, namespaces=[desk := Desk()]) as node:
        for org, room in (("default", "a"), ("other", "a"), ("default", "b")):
            await desk.broadcast(room, "order", {"text": "x" * 2000}, org=org)
        broker = node.server.backend.broker
        kept = [
            name
            for name in ("7:default:a", "5:other:a", "7:default:b")
            if await broker.before(f"room@5:/desk:{name}", None, 1)
        ]
        assert kept == ["5:other:a", "7:default:b"], "the org that has too much loses its oldest"


async def test_empty_room_leaves_nothing_behind() -> None:
    async with desk_server() as node:
        client = await trader(node)
        await call(client, "watch", room="fx")
        await call(client, "order", room="fx", quantity=1)
        client.cut()
        await node.until_empty()
        broker = node.server.backend.broker
        assert await broker.latest("room@5:/desk:7:default:fx") is None


def settings() -> Settings:
    return Settings.model_validate({"auth": {"secret": SECRET}})


@pytest.mark.parametrize("name", ["/", "desk", "/a b", ""])
def test_invalid_name_of_a_namespace_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="/desk"):
        Desk(name)


def test_stock_namespace_is_refused_at_start() -> None:
    with pytest.raises(TypeError, match=r"Subclass floorcast\.server\.Namespace"):
        create_app(settings(), namespaces=[socketio.AsyncNamespace("/desk")])


@pytest.mark.parametrize("name", ["/market", "/session"])
def test_name_of_a_built_in_namespace_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="two namespaces"):
        create_app(settings(), namespaces=[Desk(name)])


def test_namespace_is_part_of_one_server() -> None:
    desk = Desk()
    create_app(settings(), namespaces=[desk])
    with pytest.raises(ValueError, match="already part"):
        create_app(settings(), namespaces=[desk])


async def test_namespace_outside_of_a_server_cannot_broadcast() -> None:
    with pytest.raises(RuntimeError, match="create_app"):
        await Desk().broadcast("fx", "order", {})


@pytest.mark.parametrize("event", ["connect", "goodbye", "", "x" * 65])
async def test_reserved_event_name_is_refused(event: str) -> None:
    with pytest.raises(ValueError, match="cannot be an event"):
        on(event, Watch)
    async with running(namespaces=[desk := Desk()]):
        with pytest.raises(ValueError, match="cannot be an event"):
            await desk.broadcast("fx", event, {})


def test_two_handlers_of_one_event_are_refused() -> None:
    class Twice(Namespace):
        @on("a", Watch)
        async def one(self, call: Call, request: Watch) -> None:
            pass

        @on("a", Watch)
        async def two(self, call: Call, request: Watch) -> None:
            pass

    with pytest.raises(ValueError, match="two handlers"):
        create_app(settings(), namespaces=[Twice("/twice")])
