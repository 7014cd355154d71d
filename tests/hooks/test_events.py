"""Webhooks get signed events, in order, at least once."""

import logging
from collections.abc import Mapping

import pytest

from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import running
from tests.kit.server.webhook import SECRET, Webhook, webhook

USER_EVENTS = ["user.online", "user.offline"]


def settings(hook: Webhook, **more: object) -> Mapping[str, object]:
    """The settings of a server that calls this webhook; names have `__` for the dot."""
    named = {name.replace("__", "."): value for name, value in more.items()}
    return {"hooks.url": hook.url, "hooks.secret": SECRET, **named}


async def test_webhook_gets_the_events_of_a_client_in_order() -> None:
    async with webhook() as hook, running(settings(hook)) as node:
        market = await RawClient.connect(node.port, node.token())
        await market.call("subscribe", {"topics": ["PRICE:A", "USER_DATA"]})
        member = await SessionClient.connect(node, "ann")
        await member.call("join", session_id="room")
        market.cut()
        await until(lambda: "connection.closed" in hook.types)
        member.client.cut()
        await until(lambda: hook.types.count("connection.closed") == 2)
        node.pass_time(11)
        await until(lambda: len(hook.events) >= 12)
        assert hook.types[:7] == [
            "user.online",
            "connection.opened",
            "topic.occupied",
            "topic.occupied",
            "connection.opened",
            "session.occupied",
            "connection.closed",
        ]
        assert sorted(hook.types[8:]) == [
            "session.vacated",
            "topic.vacated",
            "topic.vacated",
            "user.offline",
        ]
        opened, closed = hook.events[1], hook.events[6]
        assert opened["connection_id"] == closed["connection_id"]
        assert (opened["namespace"], opened["org"], opened["user_id"]) == (
            "/market",
            "default",
            "ann",
        )
        assert closed["reason"] == "transport close"
        assert {each["node"] for each in hook.events} == {node.server.backend.occupancy.node}


async def test_webhook_gets_only_the_chosen_types() -> None:
    async with webhook() as hook, running(settings(hook, hooks__events=USER_EVENTS)) as node:
        client = await RawClient.connect(node.port, node.token())
        await client.call("subscribe", {"topics": ["PRICE:A"]})
        client.cut()
        await node.until_empty()
        node.pass_time(11)
        await until(lambda: len(hook.events) == 2)
        assert hook.types == USER_EVENTS


@pytest.mark.parametrize("status", [500, 301, 307, 400, 204])
async def test_batch_is_sent_again_until_it_is_accepted(status: int) -> None:
    async with webhook() as hook, running(settings(hook, hooks__events=USER_EVENTS)) as node:
        hook.status, hook.headers = status, {"Location": "/elsewhere"}
        client = await RawClient.connect(node.port, node.token())
        if status != 204:
            await until(lambda: len(hook.bodies) == 2)
            assert hook.events == []
            assert hook.bodies[0] == hook.bodies[1]
            hook.status = 200
        await until(lambda: hook.types == ["user.online"])
        client.cut()


async def test_receiver_that_was_down_gets_all_in_order() -> None:
    async with webhook() as hook, running(settings(hook, hooks__events=USER_EVENTS)) as node:
        await hook.stop()
        for number in range(30):
            client = await RawClient.connect(node.port, node.token(f"user{number}"))
            client.cut()
        await node.until_empty()
        node.pass_time(11)
        await until(lambda: node.server.counters.total("hooks.failed") >= 2)
        assert node.server.backend.hook_queue.waiting == 60
        await hook.start()
        await until(lambda: len(hook.distinct) == 60)
        for number in range(30):
            mine = [each["type"] for each in hook.distinct if each["user_id"] == f"user{number}"]
            assert mine == USER_EVENTS
        await until(lambda: node.server.counters.total("hooks.sent") == 60)
        assert node.server.counters.total("hooks.dropped") == 0


async def test_hanging_receiver_delays_no_client() -> None:
    async with webhook() as hook, running(settings(hook)) as node:
        hook.gate.clear()
        client = await RawClient.connect(node.port, node.token())
        await until(lambda: hook.open_requests == 1)
        assert (await client.call("subscribe", {"topics": ["PRICE:A"]}))["ok"]
        hook.gate.set()
        await until(lambda: "topic.occupied" in hook.types)
        client.cut()


async def test_dropped_events_are_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    limits = {"hooks__queue": 5, "hooks__events": ["connection.opened"]}
    async with webhook() as hook, running(settings(hook, **limits)) as node:
        await hook.stop()
        for _ in range(8):
            client = await RawClient.connect(node.port, node.token())
            client.cut()
        await until(lambda: "dropped events for the webhook" in caplog.text)
        assert node.server.counters.total("hooks.dropped") == 3
        await hook.start()
        await until(lambda: len(hook.distinct) == 5)


async def test_stopping_server_sends_what_is_queued() -> None:
    async with webhook() as hook:
        async with running(settings(hook)) as node:
            client = await RawClient.connect(node.port, node.token())
        assert hook.types[-1] == "connection.closed"
        assert hook.events[-1]["reason"] == "server.draining"
        client.cut()


async def test_log_shows_neither_secret_nor_url(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with webhook() as hook:
        flags = settings(hook, hooks__url=f"http://me:pass@127.0.0.1:{hook.port}/hook?key=word")
        async with running(flags) as node:
            hook.status = 500
            client = await RawClient.connect(node.port, node.token())
            await until(lambda: "the webhook fails: status 500" in caplog.text)
            client.cut()
    records = [each for each in caplog.records if not each.name.startswith("aiohttp")]
    shown = "".join(f"{each.getMessage()}{vars(each)}" for each in records)
    for secret in (SECRET, "me:pass", "key=word"):
        assert secret not in shown


async def test_expired_notice_is_an_event() -> None:
    flags = {"session__notice_seconds": 5, "hooks__events": ["notice.expired"]}
    async with webhook() as hook, running(settings(hook, **flags)) as node:
        await node.server.sessions.notifications.notify(
            "acme", "ann", "margin", {}, critical=True, identifier="n1"
        )
        node.pass_time(6)
        await until(lambda: hook.events)
        [event] = hook.events
        assert (event["org"], event["user_id"], event["notice_id"], event["event"]) == (
            "acme",
            "ann",
            "n1",
            "margin",
        )
