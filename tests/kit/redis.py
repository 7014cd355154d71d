"""Real redis-servers for tests: on private sockets, gone with the test run."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.kit.patience import PATIENCE_SECONDS


class RedisServer:
    """One process; it keeps nothing on disk, so a new start is an empty one."""

    def __init__(self, folder: Path, *options: str, port: int = 0, mode: str = "") -> None:
        self.port = port
        self.socket = folder / f"{mode or port}.sock"
        self._options = (
            *("--port", str(port), "--unixsocket", str(self.socket), "--dir", str(folder)),
            *options,
        )
        # A Sentinel writes down what it learns, and wants a file for it.
        self._config = folder / f"{mode or port}.conf"
        self._config.touch()
        self._mode = [f"--{mode}"] if mode else ["--save", "", "--appendonly", "no"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        program = shutil.which("redis-server")
        assert program is not None
        self._process = subprocess.Popen(
            [program, str(self._config), *self._options, *self._mode],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert self._process.poll() is None, "redis-server has ended"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash does: what it had is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """It is there, and does not answer."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It answers again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        """Somebody else who uses it."""
        client = redis.Redis(
            unix_socket_path=str(self.socket), protocol=2, socket_timeout=PATIENCE_SECONDS
        )
        try:
            yield client
        finally:
            client.close()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Where servers of one test live, if they may: a socket's path has to be short."""
    if shutil.which("redis-server") is None:
        reason = "redis-server is not installed: nothing of the Redis broker was tested"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="floorcast-redis-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def _running(*servers: RedisServer) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.kill()


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[RedisServer]:
    """A server of its own, for who breaks it."""
    with _folder() as folder:
        server = RedisServer(folder, *options)
        with _running(server):
            yield server


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for all who leave it as they found it; each uses a prefix of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_url() -> Iterator[str]:
    """A server that a Sentinel knows."""
    with _folder() as folder:
        master_port, port = _free_ports(2)
        master = RedisServer(folder, port=master_port)
        sentinel = RedisServer(folder, port=port, mode="sentinel")
        with _running(master, sentinel):
            with sentinel.client() as client:
                client.sentinel_monitor("floor", "127.0.0.1", master_port, 1)
            yield f"redis+sentinel://127.0.0.1:{port}/floor"


@pytest.fixture(scope="session")
def shards_url() -> Iterator[str]:
    """A Redis Cluster of two shards."""
    with _folder() as folder:
        one, other, *buses = _free_ports(4)
        shards = [
            RedisServer(
                folder,
                *("--cluster-enabled", "yes", "--cluster-config-file", f"{port}.nodes"),
                *("--cluster-port", str(bus)),
                port=port,
            )
            for port, bus in zip((one, other), buses, strict=True)
        ]
        with _running(*shards):
            for shard, slots in zip(shards, ((0, 8191), (8192, 16383)), strict=True):
                with shard.client() as client:
                    _command(client, "CLUSTER ADDSLOTSRANGE", *slots)
            with shards[0].client() as client:
                _command(client, "CLUSTER MEET", "127.0.0.1", other, buses[1])
            for shard in shards:
                with shard.client() as client:
                    _await_slots(client)
            yield f"redis+cluster://127.0.0.1:{one}"


def _await_slots(client: "redis.Redis") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _command(client, "CLUSTER INFO")["cluster_state"] != "ok":
        assert time.monotonic() < deadline, "the shards do not find each other"
        time.sleep(0.02)


def _command(client: "redis.Redis", *words: str | int) -> Any:
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in taken]
