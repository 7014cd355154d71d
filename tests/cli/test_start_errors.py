"""Tests that an error at the start of `serve` is named as what it is."""

import errno
import os
import sys
from collections.abc import Coroutine
from typing import Any

import pytest

from server.cli import main


def test_full_disk_is_not_reported_as_an_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_on_a_full_disk(serving: Coroutine[Any, Any, None]) -> None:
        serving.close()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/var/lib/floorcast")

    monkeypatch.setattr(sys.modules["server.cli.serve"], "run_loop", run_on_a_full_disk)
    assert main(["serve"], {"FLOORCAST_AUTH__SECRET": "x" * 40}) == 2
    error = capsys.readouterr().err
    assert "cannot start: [Errno 28] No space left on device: '/var/lib/floorcast'" in error
    assert "listen" not in error
