"""Starts real redis-servers for tests, on private sockets."""

import contextlib
import os
import shutil
import signal
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
from tests.kit.network.ports import free_ports
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.redis.acl import ACCOUNT, cluster_rights, grant, sentinel_rights, server_rights


class RedisServer:
    """One redis-server process; without persistence a restart begins empty."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        port: int = 0,
        mode: str = "",
        is_persistent: bool = False,
    ) -> None:
        self.port = port
        self.socket = folder / f"{mode or port}.sock"
        self._options = (
            *("--port", str(port), "--unixsocket", str(self.socket), "--dir", str(folder)),
            *options,
        )
        # A Sentinel requires a writable config file.
        self._config = folder / f"{mode or port}.conf"
        self._config.touch()
        self._mode = [f"--{mode}"]
        if not mode:
            self._mode = ["--save", "", "--appendonly", "yes" if is_persistent else "no"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
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
        """Kill the server like a crash: its data is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze the server: connections stay open without answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a frozen server."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def client(self) -> Iterator["redis.Redis"]:
        """A client independent of the tested server."""
        client = redis.Redis(
            unix_socket_path=str(self.socket), protocol=2, socket_timeout=MAX_WAIT_SECONDS
        )
        try:
            yield client
        finally:
            client.close()


@contextlib.contextmanager
def _server_folder() -> Iterator[Path]:
    """A folder for servers; under /tmp, as the path of a socket must be short."""
    if shutil.which("redis-server") is None:
        reason = "redis-server is not installed: the Redis backends were not tested"
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
def redis_server(*options: str, is_persistent: bool = False) -> Iterator[RedisServer]:
    """A server of its own, for tests that break it."""
    with _server_folder() as folder:
        server = RedisServer(folder, *options, is_persistent=is_persistent)
        with _running(server):
            yield server


@dataclass(frozen=True, slots=True)
class TlsServer:
    """The TLS port of a server, and the authority of its certificate."""

    port: int
    authority: CertificateAuthority


@contextlib.contextmanager
def tls_redis(*, asks_clients: bool = False) -> Iterator[TlsServer]:
    """A TLS server for 127.0.0.1, which can require client certificates."""
    with _server_folder() as folder:
        port, plain = free_ports(2)
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
    """One server for all tests that do not break it; each uses its own prefix."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def sentinel_url() -> Iterator[str]:
    """A Sentinel and its server; both grant only the documented rights."""
    with _server_folder() as folder:
        master_port, port = free_ports(2)
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
    """A master, its replica, and their Sentinel."""

    def __init__(self, master: RedisServer, replica: RedisServer, sentinel: RedisServer) -> None:
        self.url = f"redis+sentinel://127.0.0.1:{sentinel.port}/floor"
        self._master = master
        self._replica = replica
        self._sentinel = sentinel

    def start(self) -> None:
        """Connect the three, and wait until the replica is in sync."""
        with self._replica.client() as client:
            client.replicaof("127.0.0.1", self._master.port)
            _wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        with self._master.client() as client:
            # The link is up before it replicates anything.
            client.publish("somewhere", "something")
            assert client.wait(1, 5000) == 1
        with self._sentinel.client() as client:
            client.sentinel_monitor("floor", "127.0.0.1", self._master.port, 1)
            client.sentinel_set("floor", "down-after-milliseconds", 300)
            _wait_until(lambda: bool(client.sentinel_slaves("floor")))

    def disconnect_replica(self) -> None:
        """Stop replication from the master."""
        [nobody] = free_ports(1)
        with self._replica.client() as client:
            client.replicaof("127.0.0.1", nobody)

    def demote(self) -> None:
        """Turn the master into a replica that still answers."""
        [nobody] = free_ports(1)
        with self._master.client() as client:
            client.replicaof("127.0.0.1", nobody)

    def reinstate(self) -> None:
        """Turn the demoted server into a master again."""
        with self._master.client() as client:
            client.replicaof("NO", "ONE")

    def fail_over(self) -> None:
        """Let the Sentinel promote the replica while the master works."""
        with self._sentinel.client() as client:
            _wait_until(lambda: _is_accepted(client, "SENTINEL FAILOVER", "floor"))

    def follow_promoted(self) -> None:
        """Make the old master a replica of the new one, as the Sentinel does after 10 s."""
        with self._master.client() as client:
            client.replicaof("127.0.0.1", self._replica.port)

    def kill_master(self) -> None:
        """Kill the master like a crash."""
        self._master.kill()

    @property
    def is_promoted(self) -> bool:
        """Whether the replica has become the master."""
        with self._replica.client() as client:
            return bool(client.info("replication")["role"] == "master")


@contextlib.contextmanager
def redis_pair() -> Iterator[ReplicatedPair]:
    """A master, its replica and their Sentinel, for tests that break them."""
    with _server_folder() as folder:
        ports = free_ports(3)
        # Without a delay, replication starts at once instead of after five seconds.
        options = ("--repl-diskless-sync-delay", "0", "--repl-diskless-load", "on-empty-db")
        master, replica = (RedisServer(folder, *options, port=port) for port in ports[:2])
        sentinel = RedisServer(folder, port=ports[2], mode="sentinel")
        with _running(master, replica, sentinel):
            pair = ReplicatedPair(master, replica, sentinel)
            pair.start()
            yield pair


@pytest.fixture(scope="session")
def shards_url() -> Iterator[str]:
    """A Redis Cluster of two shards, which grant only the documented rights."""
    with _server_folder() as folder:
        one, other, *buses = free_ports(4)
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


def _is_accepted(client: "redis.Redis", *words: str) -> bool:
    try:
        _command(client, *words)
    except redis.ResponseError:
        return False
    return True


def _command(client: "redis.Redis", *words: str | int) -> Any:
    return client.execute_command(*words)  # type: ignore[no-untyped-call]
