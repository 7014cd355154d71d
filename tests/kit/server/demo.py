"""Run `floorcast serve --demo` as a process, as a new user does."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.kit.patience import MAX_WAIT_SECONDS


@dataclass(frozen=True, slots=True)
class Demo:
    """The demo's process and what it printed."""

    url: str
    tokens: dict[str, str]
    seconds_to_ready: float
    process: "subprocess.Popen[str]"


def environ_without_settings() -> dict[str, str]:
    """The environment without Floorcast's settings."""
    return {key: each for key, each in os.environ.items() if not key.startswith("FLOORCAST_")}


@contextlib.contextmanager
def demo(*flags: str, environ: Mapping[str, str] | None = None) -> Iterator[Demo]:
    """Run the demo on a free port until the block ends."""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "server.cli", "serve", "--demo", "--port", "0", *flags],
        stdout=subprocess.PIPE,
        text=True,
        env={**environ_without_settings(), **(environ or {})},
    )
    assert process.stdout is not None
    try:
        tokens: dict[str, str] = {}
        url = ""
        for line in process.stdout:
            if found := re.fullmatch(r"token of (\w+): (\S+)\n", line):
                tokens[found[1]] = found[2]
            if found := re.fullmatch(r"listening on (http://\S+)\n", line):
                url = found[1]
                break
        yield Demo(url, tokens, time.monotonic() - began, process)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(MAX_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
