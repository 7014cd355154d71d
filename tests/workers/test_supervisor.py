"""What a supervisor does with its workers, shown on workers that serve nobody."""

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
from server.app import SystemClock
from server.workers.control import WorkerSpec
from server.workers.failures import TooManyDeaths, WorkerFailed
from server.workers.process import Launcher
from server.workers.restarts import RestartLimit
from server.workers.supervisor import Supervisor
from tests.kit.patience import MAX_WAIT_SECONDS

ROOT = Path(__file__).parent.parent.parent


class SupervisorRig:
    """A supervisor that runs, and the diary of its workers."""

    def __init__(self, folder: Path, behavior: str, *, slots: int = 2) -> None:
        self.diary = folder / "diary"
        self.announced = 0
        self.settings_error: str | None = None
        self._listeners = [socket.socket() for _ in range(slots)]
        command = [sys.executable, "-m", "tests.workers.puppet", str(self.diary), behavior]
        environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
        self.supervisor = Supervisor(
            Launcher(command, environ, WorkerSpec(0, {})),
            self._listeners,
            clock=SystemClock(),
            limit=RestartLimit(deaths=3, seconds=30),
            drain_seconds=0.1,
            check_settings=self._check_settings,
            retry_seconds=0.01,
        )

    def notes(self, what: str) -> list[str]:
        """The pids that stand beside this in the diary, in order."""
        lines = self.diary.read_text().splitlines() if self.diary.exists() else []
        return [line.split()[-1] for line in lines if line.startswith(f"{what} ")]

    def entries(self, *what: str) -> list[tuple[str, str]]:
        """These entries, each with its pid."""
        lines = [line.rsplit(" ", 2) for line in self.diary.read_text().splitlines()]
        return [(line[0], line[2]) for line in lines if line[0] in what]

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
    """Let it run; all workers are ready when the block begins, and gone when it has ended."""
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


async def test_one_worker_alone_is_given_the_feed(tmp_path: Path) -> None:
    stage = SupervisorRig(tmp_path, "faithful", slots=3)
    async with running_supervisor(stage):
        await stage.until(lambda: bool(stage.notes("feed")))
        assert len(stage.notes("start")) == 3
    assert len(stage.notes("feed")) == 1


async def test_a_dead_worker_is_replaced_and_the_feed_goes_to_its_successor(tmp_path: Path) -> None:
    stage = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(stage):
        await stage.until(lambda: len(stage.notes("feed")) == 1)
        [feeding] = stage.notes("feed")
        os.kill(int(feeding), signal.SIGKILL)
        await stage.until(lambda: len(stage.notes("feed")) == 2)
        assert stage.notes("feed")[1] == stage.notes("start")[2]
        assert stage.announced == 1


async def test_renewing_replaces_one_after_the_other_and_never_lets_two_feed(
    tmp_path: Path,
) -> None:
    stage = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(stage):
        await stage.until(lambda: len(stage.notes("feed")) == 1)
        [feeding] = stage.notes("feed")
        first = stage.notes("start")
        stage.supervisor.renew()
        await stage.until(lambda: len(stage.notes("over")) == 2)
        third, fourth = stage.notes("start")[2:]
        [other] = set(first) - {feeding}
        assert stage.entries("start", "feed", "over")[3:] == [
            ("start", third),
            ("over", feeding),
            ("feed", third),
            ("start", fourth),
            ("over", other),
        ]


async def test_with_wrong_settings_nothing_is_renewed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stage = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(stage):
        stage.settings_error = "server.port: not a port"
        stage.supervisor.renew()
        assert "settings are wrong" in caplog.text
        assert not stage.supervisor._renewal_requested.is_set()


async def test_workers_that_keep_dying_end_all_with_a_code(tmp_path: Path) -> None:
    stage = SupervisorRig(tmp_path, "dying", slots=1)
    async with running_supervisor(stage) as running:
        with pytest.raises(TooManyDeaths, match="3 workers died within 30 s") as ended:
            await running
        assert ended.value.code == 3
        assert len(stage.notes("start")) == 3


async def test_a_worker_that_cannot_start_is_tried_again_while_others_serve(tmp_path: Path) -> None:
    stage = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(stage):
        unfit = tmp_path / "diary.unfit"
        unfit.touch()
        os.kill(int(stage.notes("start")[1]), signal.SIGKILL)
        await stage.until(lambda: len(stage.notes("start")) > 2 + 3)
        unfit.unlink()
        starts = len(stage.notes("start"))
        await stage.until(lambda: len(stage.supervisor._alive) == 2)
        await stage.until(lambda: len(stage.notes("start")) > starts)
        stage.supervisor.stop(signal.SIGTERM)
        await stage.until(lambda: len(stage.notes("term")) == 2)


async def test_what_keeps_a_worker_from_starting_is_said_once_and_ends_all(tmp_path: Path) -> None:
    stage = SupervisorRig(tmp_path, "failing")
    async with running_supervisor(stage) as running:
        with pytest.raises(WorkerFailed, match="the reason why") as ended:
            await running
        assert ended.value.code == 2
        assert stage.announced == 0


async def test_a_signal_reaches_every_worker_and_the_end_is_in_peace(tmp_path: Path) -> None:
    stage = SupervisorRig(tmp_path, "faithful")
    async with running_supervisor(stage) as running:
        stage.supervisor.stop(signal.SIGTERM)
        assert await running is True
    assert sorted(stage.notes("term")) == sorted(stage.notes("start"))


async def test_a_second_signal_kills_who_does_not_end(tmp_path: Path) -> None:
    stage = SupervisorRig(tmp_path, "stubborn")
    async with running_supervisor(stage) as running:
        stage.supervisor.stop(signal.SIGTERM)
        await stage.until(lambda: len(stage.notes("term")) == 2)
        stage.supervisor.stop(signal.SIGTERM)
        # Before it is killed for having drained for too long.
        async with asyncio.timeout(8):
            assert await running is False


async def test_a_worker_that_drains_already_is_not_told_again(tmp_path: Path) -> None:
    stage = SupervisorRig(tmp_path, "stubborn", slots=1)
    async with running_supervisor(stage) as running:
        [draining] = stage.notes("start")
        stage.supervisor.renew()
        await stage.until(lambda: len(stage.notes("feed")) == 2)
        stage.supervisor.stop(signal.SIGTERM)
        await stage.until(lambda: len(stage.notes("term")) == 1)
        stage.supervisor.stop(signal.SIGTERM)
        await running
        assert draining not in stage.notes("term")
