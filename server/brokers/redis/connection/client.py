"""Clients that run batches of commands on a single Redis or on a Cluster."""

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
from server.brokers.redis.connection.master import find_master
from server.brokers.redis.connection.replies import Reply, as_bytes
from server.brokers.redis.log.scripts import GET_INCARNATION, Script, sha_of


class Call(NamedTuple):
    """A script call; the client fills in the script's SHA for the server that runs it."""

    script: Script
    keys: tuple[bytes, ...]
    arguments: tuple[bytes | int, ...]


class CountSubscribers(NamedTuple):
    """Count the subscribers of a channel on all servers; `PUBSUB NUMSUB` counts one server's."""

    channel: bytes


PlainCommand = tuple[bytes | int, ...]
Command = PlainCommand | Call | CountSubscribers
# The scripts' SHAs in one incarnation of a server, loaded on each new connection.
ScriptNames = dict[Script, bytes]
# Raised by a connection that is broken or cannot be opened, or that does not answer in time.
CONNECTION_ERRORS = (OSError, RedisError, RedisClusterException, EOFError)


class RedisClient(Protocol):
    """A connection to Redis, opened by the first successful `run`."""

    can_overlap: bool
    """Whether a second batch may be sent before the first is answered."""

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        """Run commands in order; the reply to a rejected one is its `ResponseError`.

        Raises one of `CONNECTION_ERRORS` if the connection breaks; then no outcome is known.
        """

    async def load(self) -> None:
        """Load the scripts, for example after a `SCRIPT FLUSH`."""

    async def close(self) -> None:
        """Close the connection; the next `run` opens another."""

    async def open_pubsub(self) -> AbstractConnection:
        """Open a separate connection for pub/sub; the caller closes it."""


def evaluate(script: Script, keys: Iterable[bytes], *arguments: bytes | int) -> Call:
    """The command that runs a script."""
    return Call(script, tuple(keys), arguments)


def create_client(
    address: Address, scripts: Iterable[Script], *, timeout_seconds: float, name: str
) -> RedisClient:
    """Create a client for this address, not connected yet."""
    options = login_options(address, timeout_seconds=timeout_seconds) | {"client_name": name}
    if address.kind is AddressKind.SINGLE:
        pool = ConnectionPool.from_url(address.url, **options)
        return SingleClient(partial(_connect, pool), scripts)
    if address.kind is AddressKind.SENTINEL:
        create_sentinel = partial(
            Sentinel,
            address.hosts,
            sentinel_kwargs={**options, "socket_timeout": timeout_seconds},
        )
        create_redis = partial(Redis, db=address.database, **options)
        return SingleClient(
            partial(_connect_master, create_sentinel, address.service, create_redis), scripts
        )
    return ClusterClient(address, scripts, {**options, "socket_timeout": timeout_seconds})


def login_options(address: Address, *, timeout_seconds: float) -> dict[str, Any]:
    """The options of redis-py for a connection; a single server has its login in the URL."""
    # No retries: a retried command could run twice, so callers decide.
    options: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_connect_timeout": timeout_seconds,
        "protocol": 2,
    }
    if address.kind is not AddressKind.SINGLE:
        options |= {"username": address.username, "password": address.password, "ssl": address.tls}
        options |= address.tls_files
    return options


class SingleClient:
    """A single connection, without a task or an object per command.

    redis-py's own pipeline takes three times as long.
    """

    can_overlap = True

    def __init__(
        self, connect: Callable[[], Awaitable[AbstractConnection]], scripts: Iterable[Script]
    ) -> None:
        self._connect = connect
        self._scripts = scripts
        self._connection: AbstractConnection | None = None
        self._names: ScriptNames = {}
        # Replies arrive in the order in which the batches were sent.
        self._read_lock = asyncio.Lock()

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._connect()
            await self.load()
        try:
            return await self._exchange(connection, commands)
        except BaseException:
            # Unread replies would be taken for those to the next batch.
            await connection.disconnect(nowait=True)
            if self._connection is connection:
                self._connection = None
            raise

    async def load(self) -> None:
        [incarnation] = await self._run_checked([(b"EVAL", GET_INCARNATION, 0)])
        programs = {script: script.render(as_bytes(incarnation)) for script in self._scripts}
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
        # hiredis types its argument as a tuple of one element.
        packed = b"".join([pack_command(each) for each in plain])  # type: ignore[arg-type]
        try:
            # With the health check redis-py sends its own PING after an idle period.
            await connection.send_packed_command(packed, check_health=False)
        except AttributeError:
            # Another batch found the connection broken, and redis-py dropped its writer.
            raise ConnectionError("the connection has ended") from None
        replies: list[Reply] = []
        async with self._read_lock:
            for _ in commands:
                try:
                    # The caller limits the time of the whole batch.
                    replies.append(await connection.read_response(timeout=math.inf))
                except ResponseError as error:
                    replies.append(error)
        return replies


class ClusterClient:
    """Sends each command to the shard of its keys, and the shards of a batch concurrently."""

    can_overlap = False

    def __init__(
        self, address: Address, scripts: Iterable[Script], options: dict[str, Any]
    ) -> None:
        self._address = address
        self._scripts = scripts
        self._options = options
        self._cluster: RedisCluster | None = None
        # Per shard: each has its own incarnation.
        self._names: dict[str, ScriptNames] = {}

    async def run(self, commands: Sequence[Command]) -> list[Reply]:
        if self._cluster is None:
            self._cluster = await self._open()
        cluster = self._cluster
        by_key = [each for each in commands if not isinstance(each, CountSubscribers)]
        try:
            replies = iter(await self._pipelined(cluster, by_key) if by_key else ())
            return [
                await _count_subscribers(cluster, each)
                if isinstance(each, CountSubscribers)
                else next(replies)
                for each in commands
            ]
        except BaseException:
            await self.close()
            raise

    async def load(self) -> None:
        if self._cluster is not None:
            await self._load(self._cluster)

    async def close(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.aclose()

    async def open_pubsub(self) -> AbstractConnection:
        # Any node of a Cluster receives what is published on all of them.
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
            incarnation = await cluster.execute_command(
                "EVAL", GET_INCARNATION, 0, target_nodes=shard
            )
            known = names[shard.name] = {}
            for script in self._scripts:
                program = script.render(incarnation)
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
        for reply in replies:
            if isinstance(reply, CONNECTION_ERRORS) and not isinstance(reply, ResponseError):
                raise reply
        return replies


async def _count_subscribers(cluster: RedisCluster, command: CountSubscribers) -> Reply:
    """The subscribers on all servers that answer."""
    answers = await asyncio.gather(
        *(
            cluster.execute_command("PUBSUB NUMSUB", command.channel, target_nodes=node)
            for node in cluster.get_nodes()
        ),
        return_exceptions=True,
    )
    counted = [_subscriber_count(each) for each in answers if isinstance(each, list)]
    # Nobody knows the subscribers of a server that does not answer: count them.
    return sum(counted) + (len(answers) - len(counted))


def _subscriber_count(answer: list[Any]) -> int:
    return int(answer[0][1])


def _resolve(command: Command, names: ScriptNames) -> PlainCommand:
    """The command with the script's SHA filled in."""
    if isinstance(command, CountSubscribers):
        return (b"PUBSUB", b"NUMSUB", command.channel)
    if not isinstance(command, Call):
        return command
    # An empty SHA fails with NOSCRIPT: the pipeline then loads the scripts and retries.
    name = names.get(command.script, b"")
    return (b"EVALSHA", name, len(command.keys), *command.keys, *command.arguments)


async def _connect_master(
    create_sentinel: Callable[[], Sentinel], service: str, create_redis: Callable[..., Redis]
) -> AbstractConnection:
    """Connect to the current master, discovered anew each time.

    Each call uses its own Sentinel client: closing a shared one would break concurrent calls.
    """
    sentinel = create_sentinel()
    try:
        host, port = await find_master(sentinel, service)
    finally:
        for each in sentinel.sentinels:
            await each.connection_pool.disconnect()
    return await _connect(create_redis(host=host, port=port).connection_pool)


async def _connect(pool: ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()  # type: ignore[no-untyped-call]
    return connection
