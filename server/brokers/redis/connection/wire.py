"""Runs batches of commands on a Redis: one server over one connection, or a Cluster."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from hiredis import pack_command
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError, ResponseError

from server.brokers.redis.connection.address import Address, AddressKind
from server.brokers.redis.log.scripts import GET_INCARNATION, Script, sha_of


class Call(NamedTuple):
    """Runs a program, by the name that it has where this is sent."""

    script: Script
    keys: tuple[bytes, ...]
    arguments: tuple[bytes | int, ...]


PlainCommand = tuple[bytes | int, ...]
Command = PlainCommand | Call
# What the programs are called in one life of a server; it is asked whenever a connection is new.
ScriptNames = dict[Script, bytes]
Reply = Any
# What a connection raises that has ended, or never was.
CONNECTION_ERRORS = (OSError, RedisError, RedisClusterException, EOFError)


class RedisClient(Protocol):
    """The way to Redis for commands; it is open after the first `run` that succeeded."""

    can_overlap: bool
    """Whether another batch may be sent while the answers to one are awaited."""

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Run them in order; a refused one has its `ResponseError` in its place."""

    async def load(self) -> None:
        """Make the programs known, also to a Redis that has forgotten them."""

    async def close(self) -> None:
        """Give the connection back; the next `run` opens another."""

    async def open_pubsub(self) -> AbstractConnection:
        """A connection of its own for pub/sub; who asked for it ends it."""


def evaluate(script: Script, keys: Iterable[bytes], *arguments: bytes | int) -> Call:
    """The command that runs a program."""
    return Call(script, tuple(keys), arguments)


def create_client(
    address: Address, scripts: Iterable[Script], *, timeout_seconds: float, name: str
) -> RedisClient:
    """The way to this Redis; nothing is connected yet."""
    # What has failed is told at once: whoever asked decides what to do, and nothing runs twice.
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": timeout_seconds,
        "protocol": 2,
        "client_name": name,
    }
    if address.kind is AddressKind.SINGLE:
        pool = ConnectionPool.from_url(address.url, **options)
        return SingleClient(partial(_connect, pool), scripts)
    options |= {"username": address.username, "password": address.password, "ssl": address.tls}
    options |= address.tls_files
    if address.kind is AddressKind.SENTINEL:
        ask = partial(
            Sentinel,
            address.hosts,
            sentinel_kwargs={**options, "socket_timeout": timeout_seconds},
        )
        reach = partial(Redis, db=address.database, **options)
        return SingleClient(partial(_connect_master, ask, address.service, reach), scripts)
    return ClusterClient(address, scripts, {**options, "socket_timeout": timeout_seconds})


class SingleClient:
    """One connection, written and read without a task or an object for each command.

    redis-py's own pipeline takes three times as long for the same.
    """

    can_overlap = True

    def __init__(
        self, connect: Callable[[], Awaitable[AbstractConnection]], scripts: Iterable[Script]
    ) -> None:
        self._connect = connect
        self._scripts = scripts
        self._connection: AbstractConnection | None = None
        self._names: ScriptNames = {}
        # Answers come in the order in which batches were sent.
        self._read_lock = asyncio.Lock()

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._connect()
            await self.load()
        try:
            return await self._exchange(connection, commands)
        except BaseException:
            # What is still on its way would be taken for the answers to the next batch.
            await connection.disconnect(nowait=True)
            if self._connection is connection:
                self._connection = None
            raise

    async def load(self) -> None:
        [home] = await self._run_checked([(b"EVAL", GET_INCARNATION, 0)])
        programs = {script: script.render(home) for script in self._scripts}
        await self._run_checked([(b"SCRIPT", b"LOAD", each) for each in programs.values()])
        self._names = {script: sha_of(program) for script, program in programs.items()}

    async def _run_checked(self, commands: Sequence[Command]) -> list[Reply]:
        replies = await self.run(commands)
        for reply in replies:
            if isinstance(reply, ResponseError):
                await self.close()
                raise reply
        return replies

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def open_pubsub(self) -> AbstractConnection:
        return await self._connect()

    async def _exchange(
        self, connection: AbstractConnection, commands: Sequence[Command]
    ) -> list[Reply]:
        plain = [_resolve(each, self._names) for each in commands]
        # hiredis types what it takes as one tuple of one element.
        packed = b"".join([pack_command(each) for each in plain])  # type: ignore[arg-type]
        try:
            # Otherwise redis-py sends a PING of its own when the connection was idle for a while.
            await connection.send_packed_command(packed, check_health=False)
        except AttributeError:
            # Another batch found it broken, and redis-py let its writer go meanwhile.
            raise ConnectionError("the connection has ended") from None
        replies: list[Reply] = []
        async with self._read_lock:
            for _ in commands:
                try:
                    # The time limit is that of the whole batch.
                    replies.append(await connection.read_response(timeout=math.inf))
                except ResponseError as error:
                    replies.append(error)
        return replies


class ClusterClient:
    """Each command goes to the shard of its keys; those of one batch at the same time."""

    can_overlap = False

    def __init__(
        self, address: Address, scripts: Iterable[Script], options: dict[str, Any]
    ) -> None:
        self._address = address
        self._scripts = scripts
        self._options = options
        self._cluster: RedisCluster | None = None
        # Each shard has a life of its own.
        self._names: dict[str, ScriptNames] = {}

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        if self._cluster is None:
            self._cluster = await self._open()
        cluster = self._cluster
        try:
            replies = await self._pipelined(cluster, commands)
            for reply in replies:
                if isinstance(reply, CONNECTION_ERRORS) and not isinstance(reply, ResponseError):
                    raise reply
        except BaseException:
            await self.close()
            raise
        return replies

    async def load(self) -> None:
        if self._cluster is not None:
            await self._load(self._cluster)

    async def close(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.aclose()

    async def open_pubsub(self) -> AbstractConnection:
        # Every node of a Cluster hears what is published at any of them.
        cluster = await self._open()
        try:
            node = cluster.get_random_primary_node()
            client = Redis(
                host=node.host,
                port=int(node.port),
                **{key: value for key, value in self._options.items() if key != "socket_timeout"},
            )
            return await _connect(client.connection_pool)
        finally:
            await cluster.aclose()

    async def _open(self) -> RedisCluster:
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in self._address.hosts],
            **self._options,
        )
        try:
            await cluster.initialize()
            await self._load(cluster)
        except BaseException:
            await cluster.aclose()
            raise
        return cluster

    async def _load(self, cluster: RedisCluster) -> None:
        names: dict[str, ScriptNames] = {}
        for shard in cluster.get_primaries():
            home = await cluster.execute_command("EVAL", GET_INCARNATION, 0, target_nodes=shard)
            known = names[shard.name] = {}
            for script in self._scripts:
                program = script.render(home)
                await cluster.execute_command("SCRIPT LOAD", program, target_nodes=shard)
                known[script] = sha_of(program)
        self._names = names

    async def _pipelined(self, cluster: RedisCluster, commands: Sequence[Command]) -> list[Reply]:
        pipeline = cluster.pipeline()
        for command in commands:
            names: ScriptNames = {}
            if isinstance(command, Call):
                shard = cluster.get_node_from_key(command.keys[0].decode())
                names = self._names.get(shard.name, {}) if shard is not None else {}
            verb, *arguments = _resolve(command, names)
            assert isinstance(verb, bytes)
            pipeline.execute_command(verb.decode(), *arguments)
        replies: list[Reply] = await pipeline.execute(raise_on_error=False)
        return replies


def _resolve(command: Command, names: ScriptNames) -> PlainCommand:
    """The command as it is sent."""
    if not isinstance(command, Call):
        return command
    # A program without a name there is unknown there: it is loaded, and called again.
    name = names.get(command.script, b"")
    return (b"EVALSHA", name, len(command.keys), *command.keys, *command.arguments)


async def _connect_master(
    ask: Callable[[], Sentinel], service: str, reach: Callable[..., Redis]
) -> AbstractConnection:
    """To whoever is the master now; asked each time, for it may have changed.

    By a client of its own: what is asked at the same time would have its connections closed by us.
    """
    sentinel = ask()
    try:
        host, port = await sentinel.discover_master(service)
    finally:
        for each in sentinel.sentinels:
            await each.connection_pool.disconnect()
    return await _connect(reach(host=host, port=port).connection_pool)


async def _connect(pool: ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()  # type: ignore[no-untyped-call]
    return connection
