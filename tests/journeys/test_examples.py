"""Run the examples unchanged against the demo; they must end cleanly, without stderr output."""

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from client_sdk.contract import Stream
from client_sdk.data import ParquetSink
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.demo import Demo, demo
from tests.sdk.test_data import message

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
Script = subprocess.Popen[str]


@pytest.fixture(name="demo_server", scope="module")
def new_demo_server() -> Iterator[Demo]:
    # A high rate, so that no test waits for a trade.
    with demo(environ={"FLOORCAST_FEED__RATE": "200"}) as started:
        yield started


@contextlib.contextmanager
def run_example(demo: Demo, name: str, user: str, *arguments: object) -> Iterator[Script]:
    """Run an example until the block ends."""
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
    """The printed lines, up to one that matches a pattern."""
    assert script.stdout is not None
    lines: list[str] = []
    for line in script.stdout:
        lines.append(line.rstrip())
        if re.fullmatch(pattern, lines[-1]):
            return lines
    assert script.stderr is not None
    raise AssertionError(f"the script ended early: {lines}, {script.stderr.read()}")


def type_in(script: Script, line: str) -> None:
    assert script.stdin is not None
    script.stdin.write(line)
    script.stdin.flush()


def finish(script: Script) -> str:
    """Wait for the exit, check that stderr is empty, and return the rest of stdout."""
    output, complaints = script.communicate(timeout=MAX_WAIT_SECONDS)
    assert (script.returncode, complaints) == (0, "")
    return output


def test_watch_prices_runs_until_ctrl_c(demo_server: Demo) -> None:
    with run_example(demo_server, "watch_prices.py", "trader", "ETHUSDT") as script:
        (first,) = lines_until(script, r"ETHUSDT \d+\.\d\d #\d+, -?\d+ ms old")
        assert first
        script.send_signal(signal.SIGINT)
        assert finish(script).endswith("* CLOSED\n")


def test_keep_book_runs_until_ctrl_c(demo_server: Demo) -> None:
    with run_example(demo_server, "keep_book.py", "trader") as script:
        lines_until(script, r"LIVE [\d.]+ \| [\d.]+, mid [\d.]+, \d+ \+ \d+ levels")
        script.send_signal(signal.SIGINT)
        finish(script)


def test_publish_prices_prints_positions(demo_server: Demo) -> None:
    with run_example(demo_server, "publish_prices.py", "publisher", "MYCOIN", 1) as script:
        assert re.fullmatch(r"\d+\.\d\d epoch='\w+' seq=1\n", finish(script))


def test_two_chat_scripts_share_a_session(demo_server: Demo) -> None:
    with run_example(demo_server, "chat.py", "trader", "room") as ann:
        lines_until(ann, r"\* 1 in the room")
        with run_example(demo_server, "chat.py", "moderator", "room") as bob:
            lines_until(bob, r"\* 2 in the room")
            lines_until(ann, r"\* moderator joined, 2 in the room")
            type_in(ann, "hello\n")
            lines_until(bob, "trader: hello")
            type_in(bob, "good bye\n")
            lines_until(ann, "moderator: good bye")
            finish(bob)
        lines_until(ann, r"\* moderator left, 1 in the room")
        finish(ann)


def test_save_trades_writes_a_row_for_each_trade(demo_server: Demo, tmp_path: Path) -> None:
    path = tmp_path / "trades.parquet"
    with run_example(demo_server, "save_trades.py", "trader", path, 10) as script:
        found = re.fullmatch(r"(\d+) rows are in .*\n", finish(script))
    assert found
    table = pq.read_table(path)
    assert table.num_rows == int(found[1]) >= 10
    assert set(table.column("side").to_pylist()) <= {"buy", "sell"}


def test_notebook_writes_a_frame_to_a_file(demo_server: Demo, tmp_path: Path) -> None:
    path = tmp_path / "frame.parquet"
    with run_example(demo_server, "notebook.py", "trader", path) as script:
        output = finish(script)
    assert "LIVE" in output
    assert f"rows are in {path}" in output
    assert pq.read_table(path).num_rows >= 20


def test_http_api_script_publishes_and_notifies(demo_server: Demo) -> None:
    output = subprocess.run(
        ["bash", EXAMPLES / "http_api.sh", demo_server.url, demo_server.tokens["ops"]],
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_SECONDS,
        check=True,
    ).stdout
    assert '"positions":[{"epoch":' in output
    assert '"online":false' in output


def test_backtest_trades_on_a_file(tmp_path: Path) -> None:
    file = tmp_path / "trades.parquet"
    with ParquetSink(file, exact=True) as sink:
        # Falls, rises by 30, and falls again.
        for seq, price in enumerate((*range(150, 100, -1), *range(100, 130), 120), 1):
            deal = {"id": seq, "price": str(price), "qty": "1", "side": "buy", "ts": seq}
            sink.add(message(Stream.TRADES, seq, {"trades": [deal]}, symbol="BTCUSDT"))
    done = subprocess.run(
        [sys.executable, EXAMPLES / "backtest.py", file],
        capture_output=True,
        text=True,
        check=True,
        timeout=MAX_WAIT_SECONDS,
    )
    assert (done.stderr, done.stdout.splitlines()) == (
        "",
        ["bought at 106, sold at 120: +14 in all", "the result is +14"],
    )


def test_strategy_of_the_backtest_runs_live(demo_server: Demo) -> None:
    with run_example(demo_server, "backtest.py", "trader") as script:
        lines_until(script, r"bought at .* in all")
        script.send_signal(signal.SIGINT)
        finish(script)
