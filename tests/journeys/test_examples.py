"""The examples run as they stand against the demo, and end as told, without a word of complaint."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.demo import Demo, demo

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
Script = subprocess.Popen[str]


@pytest.fixture(name="floor", scope="module")
def new_floor() -> Iterator[Demo]:
    # Quick enough that nobody has to wait for a trade.
    with demo(environ={"FLOORCAST_FEED__RATE": "200"}) as started:
        yield started


@contextlib.contextmanager
def run_example(demo: Demo, name: str, user: str, *arguments: object) -> Iterator[Script]:
    """Run an example; whatever it complains of fails the test."""
    script = subprocess.Popen(
        [sys.executable, EXAMPLES / name, demo.url, demo.tokens[user], *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with script:
        try:
            yield script
        finally:
            script.kill()


def lines_until(script: Script, pattern: str) -> list[str]:
    """What it prints, up to a line that looks like this."""
    assert script.stdout is not None
    lines: list[str] = []
    for line in script.stdout:
        lines.append(line.rstrip())
        if re.fullmatch(pattern, lines[-1]):
            return lines
    assert script.stderr is not None
    raise AssertionError(f"it ended before: {lines}, {script.stderr.read()}")


def type_in(script: Script, line: str) -> None:
    assert script.stdin is not None
    script.stdin.write(line)
    script.stdin.flush()


def finish(script: Script) -> str:
    """It comes to its end, and has nothing to complain of; the rest of what it prints."""
    said, complaints = script.communicate(timeout=MAX_WAIT_SECONDS)
    assert (script.returncode, complaints) == (0, "")
    return said


def test_prices_are_watched_until_ctrl_c(floor: Demo) -> None:
    with run_example(floor, "watch_prices.py", "trader", "ETHUSDT") as script:
        (first,) = lines_until(script, r"ETHUSDT \d+\.\d\d #\d+, -?\d+ ms old")
        assert first
        script.send_signal(signal.SIGINT)
        assert finish(script).endswith("* CLOSED\n")


def test_a_book_is_kept_until_ctrl_c(floor: Demo) -> None:
    with run_example(floor, "keep_book.py", "trader") as script:
        lines_until(script, r"LIVE [\d.]+ \| [\d.]+, mid [\d.]+, \d+ \+ \d+ levels")
        script.send_signal(signal.SIGINT)
        finish(script)


def test_prices_are_published_and_their_positions_told(floor: Demo) -> None:
    with run_example(floor, "publish_prices.py", "publisher", "MYCOIN", 1) as script:
        assert re.fullmatch(r"\d+\.\d\d epoch='\w+' seq=1\n", finish(script))


def test_two_talk_in_a_session_until_one_has_no_more_to_say(floor: Demo) -> None:
    with run_example(floor, "chat.py", "trader", "room") as ann:
        lines_until(ann, r"\* 1 are here")
        with run_example(floor, "chat.py", "moderator", "room") as bob:
            lines_until(bob, r"\* 2 are here")
            lines_until(ann, r"\* moderator came, 2 are here")
            type_in(ann, "hello\n")
            lines_until(bob, "trader: hello")
            type_in(bob, "good bye\n")
            lines_until(ann, "moderator: good bye")
            finish(bob)
        lines_until(ann, r"\* moderator left, 1 are here")
        finish(ann)


def test_trades_are_saved_with_a_row_for_each(floor: Demo, tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    with run_example(floor, "save_trades.py", "trader", path, 10) as script:
        found = re.fullmatch(r"(\d+) rows are in .*\n", finish(script))
    assert found
    table = pq.read_table(path)
    assert table.num_rows == int(found[1]) >= 10
    assert set(table.column("side").to_pylist()) <= {"buy", "sell"}


def test_a_notebook_ends_with_a_frame_in_a_file(floor: Demo, tmp_path: Path) -> None:
    path = tmp_path / "frame.parquet"
    with run_example(floor, "notebook.py", "trader", path) as script:
        said = finish(script)
    assert "LIVE" in said
    assert f"rows are in {path}" in said
    assert pq.read_table(path).num_rows >= 20
