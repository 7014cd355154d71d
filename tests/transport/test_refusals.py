"""Refusals are logged: the first of a kind at once, repeated ones as a count."""

import logging

import aiohttp
import pytest

from server.core.counters import Counters
from server.transport import RefusalLog
from tests.kit.clients.wire import RawClient
from tests.kit.clock import ManualClock
from tests.kit.server.in_process import running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def refusals(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> RefusalLog:
    caplog.set_level(logging.INFO, "server.transport.refusals")
    return RefusalLog(clock, Counters())


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, int]]:
    found = [vars(each) for each in caplog.records if each.name == "server.transport.refusals"]
    return [(each["code"], each["ip"], each["count"]) for each in found]


def test_repeated_refusals_are_one_line_and_a_count(
    refusals: RefusalLog, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        refusals.record("auth.invalid", "malformed token", "192.0.2.1")
    assert logged(caplog) == [("auth.invalid", "192.0.2.1", 1)]
    clock.advance(10)
    refusals.tick()
    assert logged(caplog)[1:] == [("auth.invalid", "192.0.2.1", 19)]


def test_each_code_and_address_has_a_line(
    refusals: RefusalLog, caplog: pytest.LogCaptureFixture
) -> None:
    for code, address in (("a", "1"), ("a", "2"), ("b", "1")):
        refusals.record(code, "why", address)
    assert logged(caplog) == [("a", "1", 1), ("a", "2", 1), ("b", "1", 1)]


def test_refusal_that_stopped_is_forgotten(
    refusals: RefusalLog, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    refusals.record("a", "why", "1")
    clock.advance(10)
    refusals.tick()
    refusals.record("a", "why", "1")
    assert logged(caplog) == [("a", "1", 1), ("a", "1", 1)]


def test_attack_from_many_addresses_is_summed_up(
    refusals: RefusalLog, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(10_000):
        refusals.record("a", "why", str(number))
    assert len(logged(caplog)) == 101
    clock.advance(10)
    refusals.tick()
    assert logged(caplog)[101:] == [("a", "(many)", 9_899)]


async def test_every_kind_of_refusal_leaves_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "server.transport.refusals")
    async with running({"limits.connections_per_ip": 2}) as floor:
        held = await RawClient.connect(floor.port, floor.token())
        wrong = await RawClient.open(floor.port)
        await wrong.text()
        wrong.send('40/market,{"token":"nonsense"}')
        assert '"auth.invalid"' in await wrong.text()
        full = await RawClient.open(floor.port)
        await full.text()
        full.send('40/market,{"token":"' + floor.token() + '"}')
        assert '"limit.connections"' in await full.text()
        held.send("nonsense")
        await held.until_closed()
        page = {"Origin": "http://elsewhere.example"}
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{floor.url}/socket.io/?EIO=4&transport=polling", headers=page) as response,
        ):
            assert response.status == 403
        for each in (held, wrong, full):
            each.cut()
    codes = {code for code, _, _ in logged(caplog)}
    assert codes >= {"auth.invalid", "limit.connections", "protocol", "origin"}
    origins = [each.getMessage() for each in caplog.records if vars(each).get("code") == "origin"]
    assert origins == ["refused a client: server.origins does not allow 'http://elsewhere.example'"]
