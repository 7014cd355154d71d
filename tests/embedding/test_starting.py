"""Starts and stops of a server with parts of the application that fail."""

import contextlib

import pytest
from aiohttp import web

from floorcast.server import ApplicationBackend, BrokerError, create_app, load_settings
from server.brokers import MemoryBroker, MemoryHandover, MemoryPresence
from server.configs import session_rules
from server.ports import ExportConnection
from tests.kit.clock import ManualClock
from tests.kit.server.in_process import SECRET


class RecordedBroker(MemoryBroker):
    """A broker that records its stop."""

    def __init__(self, clock: ManualClock, stopped: list[str]) -> None:
        super().__init__(clock, epoch="test")
        self._stopped = stopped

    async def stop(self) -> None:
        self._stopped.append("broker")
        await super().stop()


class RecordedPresence(MemoryPresence):
    """A presence manager that records its stop, and fails in it."""

    stopped: list[str]

    async def stop(self) -> None:
        self.stopped.append("presence")
        raise ConnectionError("lost")


class FailingHandover(MemoryHandover):
    """A handover whose start fails, if it has a failure."""

    failure: Exception | None = None

    async def start(self, export: ExportConnection) -> None:
        if self.failure is not None:
            raise self.failure


@pytest.mark.parametrize("failure", [None, BrokerError("down"), OSError("down")])
async def test_each_started_part_is_stopped_even_if_another_fails(
    failure: Exception | None,
) -> None:
    settings, clock = load_settings(flags={"auth.secret": SECRET}), ManualClock()
    stopped: list[str] = []
    presence, handover = RecordedPresence(clock, session_rules(settings)), FailingHandover()
    presence.stopped, handover.failure = stopped, failure
    broker = RecordedBroker(clock, stopped)
    backend = ApplicationBackend(broker, presence, handover=handover)
    runner = web.AppRunner(create_app(settings, backend=backend, clock=clock))
    with contextlib.suppress(Exception):
        await runner.setup()
    with contextlib.suppress(Exception):
        await runner.cleanup()
    assert stopped == ["presence", "broker"]
