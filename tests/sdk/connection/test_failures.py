"""A failing callback is logged, but not for each item."""

import logging

import pytest

from client_sdk.connection.failures import FailureLog
from tests.kit.clock import ManualClock


def test_failing_callback_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    failures = FailureLog(logging.getLogger("test"), "a callback", monotonic=clock.monotonic)
    for _ in range(100):
        failures.record(ValueError("raised by a test"))
    clock.advance(60)
    failures.record(ValueError("raised by a test"))
    assert [each.message for each in caplog.records] == [
        "a callback failed",
        "a callback failed (99 times since the last message)",
    ]
    assert "raised by a test" in caplog.text
