"""Record the behaviours that passing tests show, and mark each test by what it needs."""

import gc
import json
import os
import signal
import traceback
import warnings
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.kit.marks import marks_of
from tests.kit.redis.servers import sentinel_url, shards_url, shared_redis

__all__ = ["sentinel_url", "shards_url", "shared_redis"]

# The duration of an example depends on the machine.
# CI runs the same examples every time; other runs use new ones and find more over time.
settings.register_profile(
    "floorcast",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("floorcast")

RECORD = Path(__file__).parent.parent / ".behaviours.json"
_ROW = "behaviour"
_FAILURE = pytest.StashKey[BaseException]()


class Record:
    """The outcomes of this run's tests, by row of the catalogue."""

    def __init__(self) -> None:
        self._outcomes: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A skipped test shows nothing; a failing setup or teardown is a failure.
        if report.skipped or not (report.when == "call" or report.failed):
            return
        for name, row in report.user_properties:
            if name == _ROW:
                self._outcomes.setdefault(str(row), []).append(report.outcome)

    def pytest_sessionfinish(self) -> None:
        RECORD.write_text(json.dumps(self._outcomes, indent=1, sort_keys=True))


def pytest_configure(config: pytest.Config) -> None:
    # With pytest-xdist only the controller receives all reports.
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record())
    # A background process ignores SIGINT, and some tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """The workers of `-n auto`: more than processors, because many tests wait for processes."""
    processors = os.cpu_count() or 1
    return processors + (processors + 1) // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for name in marks_of(item):
            item.add_marker(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    failure = item.stash.get(_FAILURE, None)
    if failure is None:
        return (yield)
    # What a failed test has left open must not fail the next ones with its warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        result = yield
        release_frames(failure)
        gc.collect()
        return result


def release_frames(failure: BaseException) -> None:
    """Drop what the frames of an exception, of its causes and of its parts hold."""
    parts = failure.exceptions if isinstance(failure, BaseExceptionGroup) else ()
    for each in (failure.__cause__, failure.__context__, *parts):
        if each is not None:
            release_frames(each)
    traceback.clear_frames(failure.__traceback__)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.excinfo is not None:
        item.stash[_FAILURE] = call.excinfo.value
    for marker in item.iter_markers("behaviour"):
        report.user_properties += [(_ROW, row) for row in marker.args]
    return report
