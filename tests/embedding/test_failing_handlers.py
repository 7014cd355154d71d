"""Handlers of the application that fail in unusual ways: each client still gets an answer."""

import asyncio
from typing import Any

import pytest

from floorcast.server import (
    AccessError,
    ApplicationBackend,
    Call,
    ErrorCode,
    JoinedClient,
    Principal,
    on,
)
from server.brokers import MemoryBroker
from tests.embedding.desk import Desk, Watch
from tests.journeys.test_tokens import refusal
from tests.kit.clients.wire import RawClient
from tests.kit.clock import ManualClock
from tests.kit.server.in_process import running

DESK = "/desk"


class FailingDesk(Desk):
    """A desk with handlers that fail."""

    async def on_connect(self, client: JoinedClient) -> None:
        if client.principal.user_id == "cancelled":
            raise asyncio.CancelledError
        await super().on_connect(client)
        if client.principal.user_id == "refused":
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "not today")

    async def may_stay(self, principal: Principal, room: str) -> bool:
        if room in self.closed_rooms:
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the room is closed")
        return True

    @on("set", Watch)
    async def reply_with_a_set(self, call: Call, request: Watch) -> dict[str, Any]:
        return {"rooms": {request.room}}

    @on("cancelled", Watch)
    async def end_cancelled(self, call: Call, request: Watch) -> None:
        raise asyncio.CancelledError


@pytest.mark.parametrize("event", ["set", "cancelled"])
async def test_client_of_a_failing_handler_gets_an_internal_error(event: str) -> None:
    async with running(namespaces=[FailingDesk()]) as node:
        client = await RawClient.connect(node.port, node.token(), namespace=DESK)
        reply = await client.call(event, {"room": "fx"}, namespace=DESK)
        assert reply["error"]["code"] == "server.internal"
        client.cut()


async def test_client_of_a_cancelled_connect_handler_is_refused() -> None:
    async with running(namespaces=[FailingDesk()]) as node:
        client = await RawClient.open(node.port)
        await client.text()
        code = await refusal(client, {"token": node.token("cancelled")}, DESK)
        assert code == "server.internal"
        client.cut()
        await node.until_empty()


class StuckBroker(MemoryBroker):
    """A broker that fails to unwatch a channel."""

    async def unwatch(self, channel: str) -> None:
        raise ConnectionError("no reply")


async def test_refused_client_is_removed_even_if_its_room_cannot_be_closed() -> None:
    clock = ManualClock()
    backend = ApplicationBackend(StuckBroker(clock, epoch="stuck"))
    async with running(namespaces=[FailingDesk()], backend=backend, clock=clock) as node:
        client = await RawClient.open(node.port)
        await client.text()
        code = await refusal(client, {"token": node.token("refused")}, DESK)
        assert code == "server.internal"
        client.cut()
        await node.until_empty()


async def test_each_namespace_ends_even_if_another_fails_to_end() -> None:
    clock = ManualClock()
    backend = ApplicationBackend(StuckBroker(clock, epoch="stuck"))
    async with running(namespaces=[FailingDesk()], backend=backend, clock=clock) as node:
        client = await RawClient.open(node.port)
        await client.text()
        for namespace in (DESK, "/market"):
            await client.join(node.token(), namespace=namespace)
        await client.close()
        await node.until_empty()


async def test_client_leaves_each_room_that_raises_an_access_error() -> None:
    async with running(namespaces=[desk := FailingDesk()]) as node:
        client = await RawClient.connect(node.port, node.token(), namespace=DESK)
        for room in ("fx", "gold"):
            await client.call("watch", {"room": room}, namespace=DESK)
        desk.closed_rooms |= {"fx", "gold"}
        reply = await client.call("refresh_token", {"token": node.token()}, namespace=DESK)
        assert reply["ok"]
        (member,) = node.server.clients.context.clients()
        assert desk.rooms_of(member.connection_id) == ("everybody",)
        client.cut()
