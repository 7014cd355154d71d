"""Open files: the limit is raised, and running out of them is logged and counted."""

import errno
import logging
import os
import resource

import pytest

from server.core.counters import Counters
from server.descriptors import DescriptorWatch, raise_limit
from tests.kit.clock import ManualClock


def test_soft_limit_of_open_files_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        raise_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_running_out_of_descriptors_is_logged_once_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    counters, clock = Counters(), ManualClock()
    watch = DescriptorWatch(counters, clock)
    real = os.open

    def exhausted(path: str, flags: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    watch.tick()
    monkeypatch.setattr(os, "open", exhausted)
    for _ in range(3):
        watch.tick()
        clock.advance(1)
    assert counters.total("descriptors.exhausted") == 2
    assert [each.levelname for each in caplog.records] == ["ERROR"]
    monkeypatch.setattr(os, "open", real)
    watch.tick()
    assert caplog.records[-1].message == "file descriptors are available again"
