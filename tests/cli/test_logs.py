"""Tests the format of log lines."""

import logging

from server.cli.logs import FieldsFormatter


def line(**fields: object) -> str:
    record = logging.makeLogRecord(
        {"name": "server.x", "levelname": "INFO", "msg": "closed %s", "args": ("it",), **fields}
    )
    return FieldsFormatter().format(record)


def test_fields_follow_the_message() -> None:
    assert line(ip="192.0.2.1", count=3).endswith("INFO server.x: closed it ip='192.0.2.1' count=3")
    assert line().endswith("INFO server.x: closed it")


def test_field_value_stays_on_one_line() -> None:
    assert "\n" not in line(reason="one\ntwo INFO server: forged")
