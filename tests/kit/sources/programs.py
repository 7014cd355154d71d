"""Starts real programs for tests, in folders of their own."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Producer

from tests.kit.network.ports import free_port
from tests.kit.patience import MAX_WAIT_SECONDS


def require(program: str, *folders: str) -> str:
    """The path of a program; without it the test is skipped, and fails in CI."""
    found = shutil.which(program, path=os.pathsep.join((os.environ["PATH"], *folders)))
    if found is None:
        reason = f"{program} is not installed: its feed was not tested"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a program accepts connections."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        assert process.poll() is None, "the program has ended"
        assert time.monotonic() < deadline, "the program does not listen"
        time.sleep(0.02)


class Program:
    """A program that can be killed and started again, with its data."""

    def __init__(
        self,
        command: list[str],
        port: int,
        url: str,
        *,
        folder: str,
        user: int | None = None,
        kill_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.url = url
        self._command = command
        self._port = port
        self._folder = folder
        self._user = user
        self._kill_signal = kill_signal
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self._process = subprocess.Popen(
            self._command,
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for_port(self._port, self._process)

    def kill(self) -> None:
        """Kill it as a crash does."""
        if self._process is not None:
            self._process.send_signal(self._kill_signal)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def nats_program() -> Iterator[Program]:
    """A NATS server with JetStream."""
    program = require("nats-server", "/usr/sbin")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="floorcast-nats-") as folder:
        command = [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", folder]
        server = Program(command, port, f"nats://127.0.0.1:{port}", folder=folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def nats_server() -> Iterator[str]:
    """A NATS server with JetStream; yields its URL."""
    with nats_program() as server:
        yield server.url


@contextlib.contextmanager
def postgres_program() -> Iterator[Program]:
    """A PostgreSQL server."""
    installed = [str(each) for each in sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    initdb, program = require("initdb", *installed), require("postgres", *installed)
    port = free_port()
    # PostgreSQL refuses to run as root.
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    user = None if account is None else account.pw_uid
    with tempfile.TemporaryDirectory(prefix="floorcast-pg-") as folder:
        if account is not None:
            os.chown(folder, account.pw_uid, account.pw_gid)
        data = f"{folder}/data"
        subprocess.run(
            [initdb, "-D", data, "-U", "floorcast", "--auth=trust", "--no-sync", "-E", "UTF8"],
            user=user,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        server = Program(
            [
                *(program, "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1"),
                *("-c", "fsync=off", "-c", "max_connections=20"),
            ],
            port,
            f"postgresql://floorcast@127.0.0.1:{port}/postgres",
            folder=folder,
            user=user,
            # Its processes end with it, and the next start recovers as after a crash.
            kill_signal=signal.SIGQUIT,
        )
        try:
            server.start()
            _wait_until_ready(server.url)
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server; yields its URL."""
    with postgres_program() as server:
        yield server.url


def _wait_until_ready(url: str) -> None:
    """Wait until PostgreSQL serves: it listens before it has started up."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "PostgreSQL does not start up"
            time.sleep(0.02)


class KafkaBroker:
    """The broker for tests that librdkafka has, in this process, and a producer of it."""

    def __init__(self) -> None:
        self._producer: Producer | None = Producer(
            # Its clients get the errors, and nobody reads its log.
            {"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0}
        )
        metadata = self._producer.list_topics(timeout=MAX_WAIT_SECONDS)
        [broker] = metadata.brokers.values()
        self.address = f"{broker.host}:{broker.port}"

    def produce(self, topic: str, *messages: bytes, partition: int = 0, key: str = "") -> None:
        """Produce messages, and wait until the broker has them."""
        assert self._producer is not None
        for each in messages:
            self._producer.produce(topic, each, key, partition)
        assert self._producer.flush(MAX_WAIT_SECONDS) == 0

    def stop(self) -> None:
        """End the broker; what it had is lost."""
        # It ends with its producer.
        self._producer = None
