"""The composition: apps share nothing, feeds run and may fail, anonymous users have no end."""

import asyncio
import json
import logging

import pytest

from server.app import SERVER, SystemClock, create_app
from server.ports import Publishing
from server.settings import load_settings
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import PRICE, SECRET, running


@pytest.mark.behaviour("D4")
async def test_two_servers_in_one_process_share_nothing() -> None:
    async with running() as one, running() as other:
        client = await RawClient.connect(one.port, one.token())
        await client.call("subscribe", {"topics": ["PRICE:A"]})
        await one.server.publishing.publish("PRICE:A", PRICE)
        assert one.residue()["registry"] == 1
        assert not any(other.residue().values())
        assert (await other.server.broker.head("PRICE:A")).seq == 0
        client.cut()
        await one.until_empty()


class OneTick:
    """Publishes once, then fails."""

    async def run(self, publishing: Publishing) -> None:
        await publishing.publish("PRICE:A", PRICE)
        raise RuntimeError("the exchange is away")


async def test_a_feed_that_fails_is_logged_and_the_server_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(feed=OneTick()) as floor:
        client = await RawClient.connect(floor.port, floor.token())
        answer = await client.call("subscribe", {"topics": ["PRICE:A"]})
        assert answer["topics"]["PRICE:A"]["seq"] == 1
        [logged] = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert logged.message == "the feed has failed"
        client.cut()


async def test_a_tick_that_fails_is_logged_once_and_the_next_ones_come(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as floor:
        ticks = 0
        several = asyncio.Event()

        def fail() -> None:
            nonlocal ticks
            ticks += 1
            if ticks == 3:
                several.set()
            raise RuntimeError("somebody did something")

        monkeypatch.setattr(floor.server, "tick", fail)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await several.wait()
        [logged] = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert logged.message == "a tick has failed"


async def test_the_simulated_feed_is_a_setting() -> None:
    app = create_app(load_settings(flags={"auth.secret": SECRET, "feed.name": "simulated"}))
    assert app[SERVER].feed is not None
    assert create_app(load_settings(flags={"auth.secret": SECRET}))[SERVER].feed is None


async def test_a_limit_of_0_means_none() -> None:
    names = (
        "connections",
        "connections_per_ip",
        "connections_per_user",
        "connects_per_second",
        "connects_per_second_per_ip",
        "events_per_second",
        "event_burst",
        "topics_per_connection",
        "message_bytes",
        "join_timeout_seconds",
    )
    settings: dict[str, object] = {f"limits.{name}": 0 for name in names}
    async with running({**settings, "delivery.buffer_bytes": 0}) as floor:
        silent = await RawClient.open(floor.port)
        opened = json.loads((await silent.text())[1:])
        assert opened["maxPayload"] == 2**53
        client = await RawClient.connect(floor.port, floor.token())
        topics = [f"PRICE:A{i}" for i in range(300)]
        for _ in range(3):
            answer = await client.call("subscribe", {"topics": topics})
            assert all(each["status"] == "CONNECTED" for each in answer["topics"].values())
        answer = await client.call("subscribe", {"topics": ["x" * 200_000]})
        assert answer["error"]["code"] == "request.invalid"
        floor.pass_time(25)
        silent.send("3")
        assert await client.text() == "2"
        floor.pass_time(19)
        assert floor.residue()["sockets"] == 2
        for each in (silent, client):
            each.cut()
        await floor.until_empty()


def test_the_clock_of_the_machine_goes_on() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.time() > 1_700_000_000


async def test_events_are_counted_by_outcome_and_unknown_names_as_one() -> None:
    async with running() as floor:
        client = await RawClient.connect(floor.port, floor.token())
        for event in ("subscriptions", "rubbish", "more rubbish"):
            await client.call(event, {})
        assert floor.server.counters.events() == {
            ("/market", "connect", "ok"): 1,
            ("/market", "subscriptions", "ok"): 1,
            ("/market", "(unknown)", "request.unknown_event"): 2,
        }
        assert set(floor.server.counters.seconds()) == {
            ("/market", "connect"),
            ("/market", "subscriptions"),
            ("/market", "(unknown)"),
        }
        client.cut()
