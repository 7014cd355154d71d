"""Runs examples/embed.py, an application of one's own, with stock JavaScript clients."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.network.ports import free_port
from tests.kit.patience import MAX_WAIT_SECONDS

FOLDER = Path(__file__).parent
EXAMPLE = FOLDER.parent.parent / "examples" / "embed.py"


@pytest.mark.timeout(120)
def test_stock_javascript_clients_use_the_embedded_server() -> None:
    assert (FOLDER / "node_modules").is_dir(), "run `npm --prefix tests/js ci` first"
    example = subprocess.Popen(
        [sys.executable, EXAMPLE, str(free_port())],
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert example.stdout is not None
    with example:
        try:
            tokens, url = {}, ""
            for line in example.stdout:
                if found := re.fullmatch(r"token of (\w+): (\S+)\n", line):
                    tokens[found[1]] = found[2]
                if found := re.search(r"(http://[\d.:]+)", line):
                    url = found[1]
                    break
            done = subprocess.run(
                ["node", "--test", *map(str, sorted(FOLDER.glob("embed/*.test.mjs")))],
                env={
                    **os.environ,
                    "FLOORCAST_URL": url,
                    "FLOORCAST_TOKENS": json.dumps(tokens),
                },
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        finally:
            example.send_signal(signal.SIGTERM)
            _, logged = example.communicate(timeout=MAX_WAIT_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert example.returncode == 0, logged
    assert "desk: ann is online" in logged
    assert "desk: ann connected to /desk" in logged
    assert "Traceback" not in logged
