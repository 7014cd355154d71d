"""The demo's page, in a real browser: prices stand in it a moment after it was opened."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit.demo import demo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--virtual-time-budget=4000 --dump-dom"
).split()


def test_the_page_shows_prices(tmp_path: Path) -> None:
    if CHROMIUM is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed, and must be here")
        pytest.skip("chromium is not installed: the demo's page was not looked at")
    with demo() as started:
        done = subprocess.run(
            [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}", started.url],
            capture_output=True,
            text=True,
            timeout=50,
            check=True,
        )
    page = done.stdout
    assert re.search(r'role="status">live<', page)
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "EURUSD", "AAPL"):
        assert re.search(rf"<td>{symbol}</td><td>\d+\.\d+</td><td>\d+\.\d+</td>", page), page
