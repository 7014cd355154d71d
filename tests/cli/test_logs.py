"""Tests the format of log lines."""

import json
import logging
import sys

import pytest

from server.cli.logs import ConsoleFormatter, JsonFormatter, log_to_stderr
from server.settings import LogSettings


def line(**fields: object) -> str:
    record = logging.makeLogRecord(
        {"name": "server.x", "levelname": "INFO", "msg": "closed %s", "args": ("it",), **fields}
    )
    return ConsoleFormatter().format(record)


def test_fields_follow_the_message() -> None:
    assert line(ip="192.0.2.1", count=3).endswith("INFO server.x: closed it ip='192.0.2.1' count=3")
    assert line().endswith("INFO server.x: closed it")


def test_field_value_stays_on_one_line() -> None:
    assert "\n" not in line(reason="one\ntwo INFO server: forged")


def test_json_line_has_the_fields_and_the_traceback() -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        record = logging.makeLogRecord(
            {"name": "server.x", "levelname": "ERROR", "msg": "failed %s", "args": ("it",)}
            | {"exc_info": sys.exc_info(), "ip": "192.0.2.1", "message_count": 3, "odd": {1: b"x"}}
        )
    text = JsonFormatter().format(record)
    assert "\n" not in text
    written = json.loads(text)
    assert written["message"] == "failed it"
    assert (written["level"], written["logger"], written["ip"]) == (
        "ERROR",
        "server.x",
        "192.0.2.1",
    )
    assert written["message_count"] == 3
    assert "ValueError: boom" in written["traceback"]


def test_fields_cannot_replace_the_level_or_the_message() -> None:
    record = logging.makeLogRecord({"msg": "real", "levelname": "INFO", "level": "DEBUG"})
    assert json.loads(JsonFormatter().format(record))["level"] == "INFO"


@pytest.mark.parametrize(("level", "shown"), [("info", 0), ("debug", 1)])
def test_settings_choose_the_level_and_the_format(
    level: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    handlers, before = root.handlers[:], root.level
    try:
        log_to_stderr(LogSettings.model_validate({"level": level, "format": "json"}))
        logging.getLogger("server.x").debug("seen")
    finally:
        root.handlers[:] = handlers
        root.setLevel(before)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == shown
    assert all(json.loads(each)["message"] == "seen" for each in lines)
