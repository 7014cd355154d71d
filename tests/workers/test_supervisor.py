"""Tests the supervisor with fake workers."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from server.access import ConfigurationError
from server.metrics import Report, Samples
from server.server import SystemClock
from server.workers.control import WorkerSpec
from server.workers.failures import TooManyDeaths, WorkerFailed
from server.workers.process import Launcher
from server.workers.restarts import RestartLimit
from server.workers.supervisor import Supervisor
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.workers.puppet import COUNTER, GAUGE, LAST_COUNT

ROOT = Path(__file__).parent.parent.parent


class SupervisorRig:
    """A supervisor, and the log file of its fake workers."""

    def __init__(
        self, folder: Path, behavior: str, *, slots: int = 2, hang_seconds: float = 0
    ) -> None:
        self.log = folder / "log"
        self.announced = 0
        self.settings_error: str | None = None
        self._listeners = [socket.socket() for _ in range(slots)]
        command = [sys.executable, "-m", "tests.workers.puppet", str(self.log), behavior]
        environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        self.supervisor = Supervisor(
            Launcher(command, environ, WorkerSpec(0, {})),
            self._listeners,
            clock=SystemClock(),
            limit=RestartLimit(deaths=3, seconds=30),
            drain_seconds=0.1,
            check_settings=self._check_settings,
            retry_seconds=0.01,
            hang_seconds=hang_seconds,
            ping_seconds=0.05,
        )

    def notes(self, event: str) -> list[str]:
        """The pids that logged this event, in order."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line.split()[-1] for line in lines if line.startswith(f"{event} ")]

    def entries(self, *event: str) -> list[tuple[str, str]]:
        """The logged events of these kinds, each with its pid."""
        lines = [line.rsplit(" ", 2) for line in self.log.read_text().splitlines()]
        return [(line[0], line[2]) for line in lines if line[0] in event]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while not condition():
                await asyncio.sleep(0.01)

    async def run(self) -> bool:
        try:
            return await self.supervisor.run(self._announce)
        finally:
            for each in self._listeners:
                each.close()

    def _announce(self) -> None:
        self.announced += 1

    def _check_settings(self) -> None:
        if self.settings_error is not None:
            raise ConfigurationError(self.settings_error)


@contextlib.asynccontextmanager
async def running_supervisor(rig: SupervisorRig) -> AsyncIterator["asyncio.Task[bool]"]:
    """Run the supervisor: all workers are ready in the block, and ended after it."""
    running = asyncio.get_running_loop().create_task(rig.run(), name="supervisor")
    try:
        await rig.until(lambda: rig.announced == 1 or running.done())
        yield running
    finally:
        rig.supervisor.stop(signal.SIGINT)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await asyncio.wait([running])
    for pid in rig.notes("start"):
        assert not Path(f"/proc/{pid}").exists()


async def test_exactly_one_worker_runs_the_feed(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "faithful", slots=3)
    async with running_supervisor(rig):
        await rig.until(lambda: bool(rig.notes("feed")))
        assert len(rig.notes("start")) == 3
    assert len(rig.notes("feed")) == 1


async def test_successor_of_a_dead_worker_runs_its_feed(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(rig):
        await rig.until(lambda: len(rig.notes("feed")) == 1)
        [feed_pid] = rig.notes("feed")
        os.kill(int(feed_pid), signal.SIGKILL)
        await rig.until(lambda: len(rig.notes("feed")) == 2)
        assert rig.notes("feed")[1] == rig.notes("start")[2]
        assert rig.announced == 1


async def test_renewal_never_runs_two_feeds(
    tmp_path: Path,
) -> None:
    rig = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(rig):
        await rig.until(lambda: len(rig.notes("feed")) == 1)
        [feed_pid] = rig.notes("feed")
        first = rig.notes("start")
        rig.supervisor.renew()
        await rig.until(lambda: len(rig.notes("over")) == 2)
        third, fourth = rig.notes("start")[2:]
        [other] = set(first) - {feed_pid}
        assert rig.entries("start", "feed", "over")[3:] == [
            ("start", third),
            ("over", feed_pid),
            ("feed", third),
            ("start", fourth),
            ("over", other),
        ]


async def test_invalid_settings_renew_no_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(rig):
        rig.settings_error = "server.port: not a port"
        rig.supervisor.renew()
        assert "settings are invalid" in caplog.text
        assert not rig.supervisor._renewal_requested.is_set()


async def test_supervisor_ends_after_too_many_deaths(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "dying", slots=1)
    async with running_supervisor(rig) as running:
        with pytest.raises(TooManyDeaths, match="3 workers died within 30 s") as ended:
            await running
        assert ended.value.code == 3
        assert len(rig.notes("start")) == 3


async def test_failed_start_is_retried_while_others_serve(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(rig):
        unfit = tmp_path / "log.unfit"
        unfit.touch()
        os.kill(int(rig.notes("start")[1]), signal.SIGKILL)
        await rig.until(lambda: len(rig.notes("start")) > 2 + 3)
        assert sum(slot.worker is not None for slot in rig.supervisor._slots) == 1
        unfit.unlink()
        # A worker takes signals once it is ready.
        await rig.until(lambda: all(slot.worker for slot in rig.supervisor._slots))
        rig.supervisor.stop(signal.SIGTERM)
        await rig.until(lambda: len(rig.notes("term")) == 2)


async def test_failed_first_start_ends_the_supervisor(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "failing")
    async with running_supervisor(rig) as running:
        with pytest.raises(WorkerFailed, match="the reason why") as ended:
            await running
        assert ended.value.code == 2
        assert rig.announced == 0


async def test_signal_reaches_every_worker(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(rig) as running:
        rig.supervisor.stop(signal.SIGTERM)
        assert await running is True
    assert sorted(rig.notes("term")) == sorted(rig.notes("start"))


async def test_second_signal_kills_remaining_workers(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "stubborn")
    async with running_supervisor(rig) as running:
        rig.supervisor.stop(signal.SIGTERM)
        await rig.until(lambda: len(rig.notes("term")) == 2)
        rig.supervisor.stop(signal.SIGTERM)
        # Before the drain time limit would kill it.
        async with asyncio.timeout(8):
            assert await running is False


async def test_draining_worker_gets_no_second_signal(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "stubborn", slots=1)
    async with running_supervisor(rig) as running:
        [draining] = rig.notes("start")
        rig.supervisor.renew()
        await rig.until(lambda: len(rig.notes("feed")) == 2)
        rig.supervisor.stop(signal.SIGTERM)
        await rig.until(lambda: len(rig.notes("term")) == 1)
        rig.supervisor.stop(signal.SIGTERM)
        await running
        assert draining not in rig.notes("term")


async def test_hung_worker_is_killed_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A busy machine lets a worker wait for less than this.
    rig = SupervisorRig(tmp_path, "answering", hang_seconds=1.0)
    async with running_supervisor(rig):
        await rig.until(lambda: len(rig.notes("ping")) > 2 * 20)
        assert len(rig.notes("start")) == 2, "a worker that answers is left alone"
        hung, _ = rig.notes("start")
        (tmp_path / f"log.{hung}.hung").touch()
        await rig.until(lambda: len(rig.notes("start")) == 3)
        await rig.until(lambda: not Path(f"/proc/{hung}").exists())
        [line] = [each for each in caplog.records if "hangs" in each.getMessage()]
        assert str(vars(line)["pid"]) == hung
        reports = await rig.supervisor.reports()
    own = reports["supervisor"]
    assert own.samples.values["floorcast_workers_hung_total"] == [((), 1)]
    assert own.samples.values["floorcast_workers_died_total"] == [((), 1)]


async def test_worker_of_an_older_release_is_not_pinged(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "faithful", hang_seconds=0.1)
    async with running_supervisor(rig):
        await asyncio.sleep(0.5)
        assert rig.notes("ping") == []
        assert len(rig.notes("start")) == 2
        reports = await rig.supervisor.reports()
        assert {number for number, each in reports.items() if each.is_up} == {"supervisor"}


async def test_supervisor_gathers_the_reports_of_its_workers(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "answering")
    async with running_supervisor(rig):
        several = await asyncio.gather(rig.supervisor.reports(), rig.supervisor.reports())
        for reports in several:
            obstacles = {number: each.obstacles for number, each in reports.items()}
            assert obstacles == {"0": ["I am 0"], "1": ["I am 1"], "supervisor": []}
        hung, _ = rig.notes("start")
        number = rig.log.read_text().splitlines()[0].split()[1]
        (tmp_path / f"log.{hung}.hung").touch()
        reports = await rig.supervisor.reports()
        assert [key for key, each in reports.items() if not each.is_up] == [number]


async def test_counters_of_ended_workers_stay_in_the_sums(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "answering")
    async with running_supervisor(rig):
        counted = {"0": 0.0, "1": 0.0}

        async def until_counted(**expected: float) -> None:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                while counted != {number[1:]: value for number, value in expected.items()}:
                    reports = await rig.supervisor.reports()
                    for number, before in counted.items():
                        [(_, value)] = reports[number].samples.values[COUNTER]
                        assert isinstance(value, float | int)
                        assert value >= before, "a sum has fallen"
                        counted[number] = value

        await until_counted(_0=1, _1=1)
        [first] = [line.split() for line in rig.log.read_text().splitlines() if "start 0" in line]
        os.kill(int(first[-1]), signal.SIGKILL)
        await until_counted(_0=2, _1=1)
        rig.supervisor.renew()
        await until_counted(_0=1 + LAST_COUNT + 1, _1=LAST_COUNT + 1)


async def test_draining_worker_shows_what_it_still_has(tmp_path: Path) -> None:
    rig = SupervisorRig(tmp_path, "answering", slots=1)
    async with running_supervisor(rig):
        [pid] = rig.notes("start")
        (tmp_path / f"log.{pid}.drains").touch()
        rig.supervisor.renew()
        counted = [((), LAST_COUNT + 1)]
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            # The last report of the one that drains, and the first one of its successor.
            while (reports := await rig.supervisor.reports())["0"].samples.values.get(
                COUNTER
            ) != counted:
                await asyncio.sleep(0.01)
        assert reports["0-draining"] == Report(Samples({GAUGE: [((), 3)]}), [])
        os.kill(int(pid), signal.SIGKILL)
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            while "0-draining" in (reports := await rig.supervisor.reports()):
                await asyncio.sleep(0.01)
        assert reports["0"].samples.values[COUNTER] == counted
