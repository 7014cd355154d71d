"""With several nodes, webhooks and handlers get each change of a user once, in order."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from floorcast.server import Handlers, UserEvent
from server.tasks import cancel_and_wait
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer
from tests.kit.server.nodes import Node, nodes
from tests.kit.server.webhook import SECRET, Webhook, webhook

EVENTS = ["user.online", "user.offline", "connection.opened", "connection.closed"]
GRACE = {"session.grace_seconds": 0.3, "broker.lease_seconds": 1.0}


class Seen:
    """The calls of the handlers of all nodes."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def parts(self) -> dict[str, Any]:
        return {"handlers": Handlers(user_online=self.online, user_offline=self.offline)}

    def online(self, user: UserEvent) -> None:
        self.lines.append(f"online {user.user_id}")

    def offline(self, user: UserEvent) -> None:
        self.lines.append(f"offline {user.user_id}")


@contextlib.asynccontextmanager
async def hooked_nodes(redis: RedisServer, seen: Seen) -> AsyncIterator[tuple[Webhook, list[Node]]]:
    """Two nodes that call one webhook."""
    async with webhook() as hook:
        settings = {"hooks.url": hook.url, "hooks.secret": SECRET, "hooks.events": EVENTS}
        async with nodes(redis, 2, seen.parts, **settings, **GRACE) as started:
            yield hook, started


async def kill(node: Node) -> None:
    """Let a node fall silent: Redis hears no more of it, as after `kill -9`."""
    occupancy: Any = node.server.backend.occupancy
    occupancy._task.cancel()
    occupancy._task = None


def of_user(hook: Webhook, user: str) -> list[str]:
    return [each["type"] for each in hook.distinct if each["user_id"] == user]


async def test_user_that_moves_between_nodes_is_online_once(shared_redis: RedisServer) -> None:
    seen = Seen()
    async with hooked_nodes(shared_redis, seen) as (hook, (one, two)):
        client = None
        for node in (one, two, one, two):
            other = await RawClient.connect(node.port, node.token())
            if client is not None:
                client.cut()
            client = other
        assert client is not None
        client.cut()
        await until(lambda: "user.offline" in hook.types)
        assert seen.lines == ["online ann", "offline ann"]
        assert of_user(hook, "ann").count("user.online") == 1
        assert of_user(hook, "ann")[-1] == "user.offline"
        assert hook.types.count("connection.opened") == 4
        opened = {each["connection_id"] for each in hook.distinct if "connection_id" in each}
        for connection in opened:
            mine = [e["type"] for e in hook.distinct if e.get("connection_id") == connection]
            assert mine == ["connection.opened", "connection.closed"]


async def test_user_of_a_dead_node_is_offline_once(shared_redis: RedisServer) -> None:
    seen = Seen()
    async with hooked_nodes(shared_redis, seen) as (hook, (one, two)):
        clients = [await RawClient.connect(one.port, one.token(user)) for user in ("ann", "bob")]
        clients.append(await RawClient.connect(two.port, two.token("bob")))
        await until(lambda: hook.types.count("connection.opened") == 3)
        await kill(one)
        await until(lambda: "user.offline" in hook.types)
        assert of_user(hook, "ann") == ["user.online", "connection.opened", "user.offline"] or (
            of_user(hook, "ann") == ["connection.opened", "user.online", "user.offline"]
        )
        assert "user.offline" not in of_user(hook, "bob")
        await until(lambda: "offline ann" in seen.lines)
        assert sorted(seen.lines) == ["offline ann", "online ann", "online bob"]
        for client in clients:
            client.cut()


async def test_another_node_sends_what_a_dead_one_has_queued(shared_redis: RedisServer) -> None:
    seen = Seen()
    async with hooked_nodes(shared_redis, seen) as (hook, (one, two)):
        await hook.stop()
        users = [f"user{number}" for number in range(20)]
        clients = [await RawClient.connect(one.port, one.token(user)) for user in users]
        await until(lambda: len(seen.lines) == 20)
        await until(lambda: one.server.counters.total("hooks.failed"))
        # What it has queued is in Redis; it sends no more.
        sender: Any = one.server.hooks.sender
        task, sender._task = sender._task, None
        await cancel_and_wait(task)
        await sender._endpoint.stop()
        await kill(one)
        await hook.start()
        await until(lambda: hook.types.count("user.online") == 20)
        await until(lambda: hook.types.count("user.offline") == 20)
        for user in users:
            assert of_user(hook, user)[-1] == "user.offline"
        for client in clients:
            client.cut()
        await until(lambda: two.server.counters.total("hooks.sent") >= 60)
