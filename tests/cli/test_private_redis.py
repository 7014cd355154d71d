"""Tests the private redis-server of the demo."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from server.access import ConfigurationError
from server.cli.private_redis import private_redis
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.programs import require_program


def run_command(url: str, command: str) -> str:
    """Run a Redis command; return the raw reply."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(MAX_WAIT_SECONDS)
        client.connect(url.removeprefix("unix://"))
        client.sendall(command.encode() + b"\r\n")
        return client.recv(4096).decode()


def is_answering(url: str) -> bool:
    try:
        return bool(run_command(url, "PING"))
    except ConnectionError:
        return False


def test_private_redis_leaves_nothing_on_disk() -> None:
    require_program("redis-server")
    with private_redis() as url:
        path = Path(url.removeprefix("unix://"))
        assert path.stat().st_mode & 0o077 == 0
        assert run_command(url, "SET a 1") == "+OK\r\n"
        for setting in ("save", "port", "appendonly"):
            assert run_command(url, f"CONFIG GET {setting}").split("\r\n")[4] in ("", "0", "no")
    assert not path.parent.exists()


def test_private_redis_ends_with_a_killed_parent() -> None:
    require_program("redis-server")
    code = (
        "import time\n"
        "from server.cli.private_redis import private_redis\n"
        "with private_redis() as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert run_command(url, "PING") == "+PONG\r\n"
        parent.kill()
        parent.wait()
    give_up_at = time.monotonic() + MAX_WAIT_SECONDS
    while is_answering(url):
        assert time.monotonic() < give_up_at
    shutil.rmtree(Path(url.removeprefix("unix://")).parent)


def test_private_redis_needs_an_installed_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="redis-server, and none is installed"):
        private_redis().__enter__()
