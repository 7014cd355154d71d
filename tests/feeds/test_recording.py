"""Tests reading recordings line by line."""

import tracemalloc
from pathlib import Path

import pytest

from server.feeds import FeedError
from server.feeds.recording import read_recording
from tests.feeds.recorded import line, recording


def test_line_becomes_a_message_with_defaults(tmp_path: Path) -> None:
    [message] = read_recording(Path(recording(tmp_path, line(3))))
    assert (message.line, message.ts_ms, message.topic, message.data) == (1, 3, "PRICE:A", {"n": 3})
    assert (message.kind, message.user, message.org) == ("update", None, "default")


def test_blank_lines_are_skipped_but_counted(tmp_path: Path) -> None:
    file = recording(tmp_path, "", line(1), "  ", "\t", line(2), "")
    assert [message.line for message in read_recording(Path(file))] == [2, 5]


def test_last_line_needs_no_line_break(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_text(line(1) + "\r\n" + line(2))
    assert [message.ts_ms for message in read_recording(path)] == [1, 2]


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "rubbish",
        "[1]",
        "7",
        '{"ts": 2, "ts": 3, "topic": "PRICE:A", "data": {}}',
        '{"ts": 2, "topic": "PRICE:A", "data": {"n": NaN}}',
        line("2"),
        line(2.5),
        line(True),
        line(None),
        line(2, topic=7),
        line(2, topic=None),
        line(2, data=[]),
        line(2, data=None),
        line(2, type="heartbeat"),
        line(2, type=None),
        line(2, type=[]),
        line(2, user=1),
        line(2, org=None),
        '{"topic": "PRICE:A", "data": {}}',
    ],
)
def test_error_names_the_malformed_line(tmp_path: Path, bad: str) -> None:
    messages = read_recording(Path(recording(tmp_path, line(1), bad, line(3))))
    assert next(messages).ts_ms == 1
    with pytest.raises(FeedError, match=r"recorded\.jsonl:2: "):
        next(messages)


def test_error_names_the_line_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_bytes(line(1).encode() + b'\n{"ts": 2, "topic": "\xff"}\n')
    with pytest.raises(FeedError, match=r"recorded\.jsonl:2: not UTF-8"):
        list(read_recording(path))


def test_error_does_not_show_the_data(tmp_path: Path) -> None:
    with pytest.raises(FeedError) as raised:
        list(read_recording(Path(recording(tmp_path, line(1, data=["hush"], topic="PRICE:HUSH")))))
    assert "hush" not in str(raised.value).lower()


def test_error_names_the_line_with_a_decreasing_time(tmp_path: Path) -> None:
    messages = read_recording(Path(recording(tmp_path, line(10), line(10), line(9))))
    assert [next(messages).ts_ms for _ in range(2)] == [10, 10]
    with pytest.raises(FeedError, match=r"recorded\.jsonl:3: ts goes backwards"):
        next(messages)


def test_recording_is_not_read_into_memory(tmp_path: Path) -> None:
    file = Path(recording(tmp_path, *(line(ms, data={"text": "x" * 1000}) for ms in range(3000))))
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_recording(file)) == 3000
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < file.stat().st_size / 4


def test_missing_file_raises_feed_error(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="cannot read"):
        next(read_recording(tmp_path / "missing.jsonl"))
