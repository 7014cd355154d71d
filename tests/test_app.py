"""The composed application: isolation, feeds, ticks, limits and counters."""

import asyncio
import json
import logging

import pytest

from server.app import SERVER, create_app
from server.ports import Publishing
from server.server import SystemClock
from server.settings import load_settings
from tests.kit.clients.wire import RawClient
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import PRICE, SECRET, running


@pytest.mark.behaviour("D4")
async def test_two_servers_in_one_process_share_nothing() -> None:
    async with running() as one, running() as other:
        client = await RawClient.connect(one.port, one.token())
        await client.call("subscribe", {"topics": ["PRICE:A"]})
        await one.server.market.publishing.publish("PRICE:A", PRICE)
        assert one.residue()["registry"] == 1
        assert not any(other.residue().values())
        assert (await other.server.backend.broker.head("PRICE:A")).seq == 0
        client.cut()
        await one.until_empty()


class FailsOnce:
    """Publishes once and fails; if it is run again, publishes once more when it may, and ends."""

    def __init__(self) -> None:
        self._runs = 0
        self.goes_on = asyncio.Event()

    async def run(self, publishing: Publishing) -> None:
        self._runs += 1
        if self._runs == 2:
            await self.goes_on.wait()
        await publishing.publish("PRICE:A", PRICE)
        if self._runs == 1:
            raise RuntimeError("the exchange is down")


async def test_failed_feed_is_logged_and_restarted_while_the_server_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed = FailsOnce()
    async with running(feed=feed) as rig:
        assert rig.server.is_ready, "the server does not depend on its feed"
        client = await RawClient.connect(rig.port, rig.token())
        reply = await client.call("subscribe", {"topics": ["PRICE:A"]})
        seq = reply["topics"]["PRICE:A"]["seq"]
        assert seq == 1, "the feed has failed after its first message"
        feed.goes_on.set()
        assert (await client.event())[1]["state"] == "STALE"
        assert (await client.event())[1]["state"] == "LIVE"
        assert (await client.event())[1]["seq"] == 2
        [logged] = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert logged.message == "background task failed"
        assert vars(logged)["task"] == "floorcast-feed-FailsOnce"
        assert logged.exc_info is not None
        assert rig.server.counters.total("tasks.restarted") == 1
        client.cut()


async def test_server_is_not_ready_while_one_of_its_tasks_is_failing() -> None:
    async with running() as rig:
        rig.server.tasks.failing.add("floorcast-presence")
        assert not rig.server.is_ready
        rig.server.tasks.failing.clear()
        assert rig.server.is_ready


async def test_failing_tick_is_logged_once_and_repeated(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as rig:
        ticks = 0
        several = asyncio.Event()

        def fail() -> None:
            nonlocal ticks
            ticks += 1
            if ticks == 3:
                several.set()
            raise RuntimeError("broken timer")

        monkeypatch.setattr(rig.server, "tick", fail)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await several.wait()
        [logged] = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert logged.message == "tick failed"


async def test_setting_selects_the_simulated_feed() -> None:
    app = create_app(load_settings(flags={"auth.secret": SECRET, "feed.name": "simulated"}))
    assert [feed.name for feed in app[SERVER].feeds] == ["simulated"]
    assert create_app(load_settings(flags={"auth.secret": SECRET}))[SERVER].feeds == ()


async def test_limit_of_0_means_no_limit() -> None:
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
    async with running({**settings, "delivery.buffer_bytes": 0}) as rig:
        silent = await RawClient.open(rig.port)
        opened = json.loads((await silent.text())[1:])
        assert opened["maxPayload"] == 2**53
        client = await RawClient.connect(rig.port, rig.token())
        topics = [f"PRICE:A{i}" for i in range(300)]
        for _ in range(3):
            reply = await client.call("subscribe", {"topics": topics})
            assert all(each["status"] == "CONNECTED" for each in reply["topics"].values())
        reply = await client.call("subscribe", {"topics": ["x" * 200_000]})
        assert reply["error"]["code"] == "request.invalid"
        rig.pass_time(25)
        silent.send("3")
        assert await client.text() == "2"
        rig.pass_time(19)
        assert rig.residue()["sockets"] == 2
        for each in (silent, client):
            each.cut()
        await rig.until_empty()


def test_system_clock_advances() -> None:
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()
    assert clock.time() > 1_700_000_000


async def test_unknown_events_share_one_counter() -> None:
    async with running() as rig:
        client = await RawClient.connect(rig.port, rig.token())
        for event in ("subscriptions", "rubbish", "more rubbish"):
            await client.call(event, {})
        assert rig.server.counters.events() == {
            ("/market", "connect", "ok"): 1,
            ("/market", "subscriptions", "ok"): 1,
            ("/market", "(unknown)", "request.unknown_event"): 2,
        }
        assert set(rig.server.counters.seconds()) == {
            ("/market", "connect"),
            ("/market", "subscriptions"),
            ("/market", "(unknown)"),
        }
        client.cut()


async def test_broker_that_goes_and_returns_leaves_a_line_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "server.server")
    async with running() as rig:
        report = rig.server._on_broker_state
        # Without an interruption before it, being up is no news.
        report(True)
        assert not caplog.records
        report(False)
        rig.pass_time(3)
        report(True)
    down, up = caplog.records
    assert down.levelname == "ERROR"
    assert down.getMessage() == "the broker is unavailable: publishing fails until it answers again"
    assert up.getMessage() == "the broker is available again"
    assert vars(up)["after_seconds"] == 3
