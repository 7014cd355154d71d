"""Log lines: the fields beside the text are shown, and stay on one line."""

import logging

from server.cli.logs import FieldsFormatter


def line(**fields: object) -> str:
    record = logging.makeLogRecord(
        {"name": "server.x", "levelname": "INFO", "msg": "closed %s", "args": ("it",), **fields}
    )
    return FieldsFormatter().format(record)


def test_fields_stand_behind_the_text() -> None:
    assert line(ip="192.0.2.1", count=3).endswith("INFO server.x: closed it ip='192.0.2.1' count=3")
    assert line().endswith("INFO server.x: closed it")


def test_a_value_cannot_begin_a_line_of_its_own() -> None:
    assert "\n" not in line(reason="one\ntwo INFO server: forged")
