"""Real redis-servers for tests: on private sockets, gone with the test run."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.kit.network.certificates import CertificateAuthority
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.acl import ACCOUNT, cluster_rights, grant, sentinel_rights, server_rights


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
        deadline = time.monotonic() + MAX_WAIT_SECONDS
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
            unix_socket_path=str(self.socket), protocol=2, socket_timeout=MAX_WAIT_SECONDS
        )
        try:
            yield client
        finally:
            client.close()


@contextlib.contextmanager
def _server_folder() -> Iterator[Path]:
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
    with _server_folder() as folder:
        server = RedisServer(folder, *options)
        with _running(server):
            yield server


@dataclass(frozen=True, slots=True)
class TlsServer:
    """Where a server speaks TLS, and who has given it its certificate."""

    port: int
    authority: CertificateAuthority


@contextlib.contextmanager
def tls_redis(*, asks_clients: bool = False) -> Iterator[TlsServer]:
    """A server with a certificate for 127.0.0.1, which may ask its clients for theirs."""
    with _server_folder() as folder:
        port, plain = _free_ports(2)
        authority = CertificateAuthority(folder)
        certificate, key = authority.certificate("server", "127.0.0.1")
        server = RedisServer(
            folder,
            *("--tls-port", str(port), "--tls-auth-clients", "yes" if asks_clients else "no"),
            *("--tls-cert-file", str(certificate), "--tls-key-file", str(key)),
            *("--tls-ca-cert-file", str(authority.file)),
            port=plain,
        )
        with _running(server):
            yield TlsServer(port, authority)


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One server for all who leave it as they found it; each uses a prefix of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_url() -> Iterator[str]:
    """A server that a Sentinel knows; both grant the least that is documented."""
    with _server_folder() as folder:
        master_port, port = _free_ports(2)
        master = RedisServer(folder, port=master_port)
        sentinel = RedisServer(folder, port=port, mode="sentinel")
        with _running(master, sentinel):
            with sentinel.client() as client:
                client.sentinel_monitor("floor", "127.0.0.1", master_port, 1)
                grant(client, *sentinel_rights())
            with master.client() as client:
                grant(client, *server_rights(any_name=True))
            yield f"redis+sentinel://{ACCOUNT}@127.0.0.1:{port}/floor"


class ReplicatedPair:
    """A master and its replica, and the Sentinel that knows them."""

    def __init__(self, master: RedisServer, replica: RedisServer, sentinel: RedisServer) -> None:
        self.url = f"redis+sentinel://127.0.0.1:{sentinel.port}/floor"
        self._master = master
        self._replica = replica
        self._sentinel = sentinel

    def start(self) -> None:
        """Wait until the replica has what the master has, and the Sentinel knows of both."""
        with self._replica.client() as client:
            client.replicaof("127.0.0.1", self._master.port)
            _wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        with self._master.client() as client:
            # The link is up a while before anything comes over it.
            client.publish("somewhere", "something")
            assert client.wait(1, 5000) == 1
        with self._sentinel.client() as client:
            client.sentinel_monitor("floor", "127.0.0.1", self._master.port, 1)
            client.sentinel_set("floor", "down-after-milliseconds", 300)
            _wait_until(lambda: bool(client.sentinel_slaves("floor")))

    def disconnect_replica(self) -> None:
        """The replica hears nothing more of its master."""
        [nobody] = _free_ports(1)
        with self._replica.client() as client:
            client.replicaof("127.0.0.1", nobody)

    def demote(self) -> None:
        """The master is none any more, and answers all the same."""
        [nobody] = _free_ports(1)
        with self._master.client() as client:
            client.replicaof("127.0.0.1", nobody)

    def reinstate(self) -> None:
        """It is the master again."""
        with self._master.client() as client:
            client.replicaof("NO", "ONE")

    def kill_master(self) -> None:
        """As a crash does."""
        self._master.kill()

    @property
    def is_promoted(self) -> bool:
        """Whether the replica is the master by now."""
        with self._replica.client() as client:
            return bool(client.info("replication")["role"] == "master")


@contextlib.contextmanager
def redis_pair() -> Iterator[ReplicatedPair]:
    """A master, its replica and their Sentinel, for who breaks them."""
    with _server_folder() as folder:
        ports = _free_ports(3)
        # A replica of its own starts at once, not at the next full five seconds.
        options = ("--repl-diskless-sync-delay", "0", "--repl-diskless-load", "on-empty-db")
        master, replica = (RedisServer(folder, *options, port=port) for port in ports[:2])
        sentinel = RedisServer(folder, port=ports[2], mode="sentinel")
        with _running(master, replica, sentinel):
            pair = ReplicatedPair(master, replica, sentinel)
            pair.start()
            yield pair


@pytest.fixture(scope="session")
def shards_url() -> Iterator[str]:
    """A Redis Cluster of two shards, which grant the least that is documented."""
    with _server_folder() as folder:
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
                    _wait_until(lambda: _command(client, "CLUSTER INFO")["cluster_state"] == "ok")
                    grant(client, *cluster_rights(any_name=True))
            yield f"redis+cluster://{ACCOUNT}@127.0.0.1:{one}"


def _wait_until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while not done():
        assert time.monotonic() < deadline, "the servers do not find each other"
        time.sleep(0.02)


def _command(client: "redis.Redis", *words: str | int) -> Any:
    return client.execute_command(*words)  # type: ignore[no-untyped-call]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in taken]
