"""The Redis of the demo: it answers on a socket of its own, and is gone with its owner."""

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
    """What Redis says to a command."""
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


def test_it_answers_keeps_nothing_on_disk_and_leaves_nothing_behind() -> None:
    require_program("redis-server")
    with private_redis() as url:
        path = Path(url.removeprefix("unix://"))
        assert path.stat().st_mode & 0o077 == 0
        assert run_command(url, "SET a 1") == "+OK\r\n"
        for setting in ("save", "port", "appendonly"):
            assert run_command(url, f"CONFIG GET {setting}").split("\r\n")[4] in ("", "0", "no")
    assert not path.parent.exists()


def test_it_ends_with_an_owner_who_is_killed() -> None:
    require_program("redis-server")
    code = (
        "import time\n"
        "from server.cli.private_redis import private_redis\n"
        "with private_redis() as url:\n"
        "    print(url, flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        assert run_command(url, "PING") == "+PONG\r\n"
        owner.kill()
        owner.wait()
    give_up_at = time.monotonic() + MAX_WAIT_SECONDS
    while is_answering(url):
        assert time.monotonic() < give_up_at
    shutil.rmtree(Path(url.removeprefix("unix://")).parent)


def test_where_no_redis_is_installed_the_demo_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="redis-server, and none is installed"):
        private_redis().__enter__()
