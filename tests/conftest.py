"""Records which behaviours of the catalogue were shown by a test that passed; starts Redis."""

import json
import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.kit.redis.servers import sentinel_url, shards_url, shared_redis

__all__ = ["sentinel_url", "shards_url", "shared_redis"]

# How long an example takes says more of the machine than of us.
# In CI the same examples every time; elsewhere new ones, so that more is found in the end.
settings.register_profile(
    "floorcast",
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("floorcast")

RECORD = Path(__file__).parent.parent / ".behaviours.json"
_SHOWN = pytest.StashKey[dict[str, list[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_SHOWN] = {}
    # Who starts the tests in the background has them ignore Ctrl-C, and some of them press it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # A skipped test shows nothing; one that fails around its call has not passed.
    if not report.skipped and (report.when == "call" or report.failed):
        outcome = "passed" if report.passed else "failed"
        for marker in item.iter_markers("behaviour"):
            for row in marker.args:
                item.config.stash[_SHOWN].setdefault(row, []).append(outcome)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    RECORD.write_text(json.dumps(session.config.stash[_SHOWN], indent=1, sort_keys=True))
