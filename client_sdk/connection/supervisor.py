"""Owns the client's connection: opens it, maintains it, and reconnects until the client closes."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from client_sdk.connection.backoff import Backoff
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.control_events import ControlEvents
from client_sdk.connection.namespaces import Namespace
from client_sdk.connection.packets import Packet, PacketType, encode, parse_reply
from client_sdk.connection.states import ClientState, Gate, StateTracker
from client_sdk.connection.tokens import TokenFetcher, TokenRenewal
from client_sdk.connection.websocket import Connection, OnPacket
from client_sdk.contract import Reply
from client_sdk.errors import (
    AuthenticationError,
    ClientClosed,
    ConfigError,
    ConnectionLost,
    FloorcastError,
    ForbiddenError,
    ProtocolError,
    TokenRevoked,
    TokenUnavailable,
    error_from_code,
)
from client_sdk.stats import Counters

logger = logging.getLogger(__name__)

# A token function whose tokens the server keeps refusing is as wrong as a wrong string.
_MAX_BAD_TOKENS = 3

Connect = Callable[[OnPacket], Awaitable[Connection]]


class Supervisor:
    """One task that connects, joins namespaces and renews tokens; others only wake it."""

    def __init__(
        self,
        connect: Connect,
        tokens: TokenFetcher,
        backoff: Backoff,
        clock: ServerClock,
        counters: Counters,
    ) -> None:
        self._connect = connect
        self._tokens = tokens
        self._backoff = backoff
        self._clock = clock
        self._counters = counters
        self._namespaces: dict[str, Namespace] = {}
        self._wake = asyncio.Event()
        self._controls = self._new_controls()
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._bad_tokens = 0
        self._was_online = False
        # Since the last connection.
        self._failures = 0
        self.state = StateTracker()
        self.online = Gate()
        self.closed = asyncio.Event()

    def namespace(self, name: str) -> Namespace:
        """Add a namespace; call once for each name."""
        namespace = self._namespaces[name] = Namespace(name, self._wake.set)
        return namespace

    def start(self) -> None:
        """Start connecting."""
        for namespace in self._namespaces.values():
            namespace.is_started = True
        self._task = asyncio.create_task(self._run(), name="floorcast-supervisor")

    async def close(self) -> None:
        """End the connection for good."""
        try:
            if self._connection is not None:
                await self._leave_namespaces(self._connection)
        finally:
            # Before the connection ends: readers end, and do not see it as lost.
            self._finish(ClientClosed("the client is closed"))
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])

    async def _leave_namespaces(self, connection: Connection) -> None:
        """Leave on purpose, so that others see it at once, without a grace period."""
        try:
            for namespace in self._namespaces.values():
                if namespace.connection is connection:
                    await connection.leave(namespace.name)
        except (FloorcastError, TimeoutError):
            logger.debug("leaving the namespaces failed")

    def _finish(self, error: FloorcastError) -> None:
        reason = None if isinstance(error, ClientClosed) else error
        if self.state.change(ClientState.CLOSED, reason):
            self.online.fail(error)
            for namespace in self._namespaces.values():
                namespace.fail(error)
            self.closed.set()

    # --- the life of the connection

    async def _run(self) -> None:
        try:
            while True:
                delay_seconds = await self._run_connection()
                await asyncio.sleep(delay_seconds)
        except FloorcastError as error:
            logger.warning("the client is closed: %s", error, extra={"code": error.code})
            self._finish(error)
        except Exception as error:
            # An edge: callers that wait for this client must not wait forever.
            logger.exception("the client failed")
            self._finish(ProtocolError(f"the client failed: {error!r}"))

    def _new_controls(self) -> ControlEvents:
        return ControlEvents(self._clock, TokenRenewal(self._backoff), self._wake.set)

    async def _run_connection(self) -> float:
        """Run one connection until it ends; returns the delay before the next in seconds."""
        now = asyncio.get_running_loop().time
        self.state.change(ClientState.CONNECTING)
        self._controls = self._new_controls()
        online_at = None
        error: FloorcastError
        try:
            token = await self._tokens.fetch()
            connection = self._connection = await self._connect(self._on_packet)
            try:
                connection.on_end(self._on_connection_end)
                await self._join_namespaces(connection, token)
                online_at = now()
                error = await self._maintain(connection)
            finally:
                self._connection = None
                self._on_connection_end()
                await connection.close()
        except FloorcastError as raised:
            error = raised
        if online_at is not None:
            self._backoff.reset_if_stable(now() - online_at)
        return self._retry_delay_seconds(error)

    def _retry_delay_seconds(self, error: FloorcastError) -> float:
        """The delay before the next attempt; raises if reconnecting is pointless."""
        controls = self._controls
        if controls.goodbye is not None and controls.is_final:
            raise error_from_code(controls.goodbye.code, controls.goodbye.message)
        if self._is_final(error):
            raise error
        if controls.goodbye is not None:
            # The connection ended because of it.
            error = error_from_code(controls.goodbye.code, controls.goodbye.message)
        if controls.is_reconnect_due:
            # The server has spread the clients already: each hint names another moment.
            seconds = 0.0
        else:
            server_delay_ms = max(error.retry_after_ms or 0, controls.retry_after_ms)
            seconds = server_delay_ms / 1000 + self._backoff.next_seconds()
        logger.log(
            self._offline_level(),
            "offline, next attempt in %.1f s: %s",
            seconds,
            error,
            extra={"code": error.code, "seconds": round(seconds, 3)},
        )
        self.state.change(ClientState.OFFLINE, error)
        return seconds

    def _offline_level(self) -> int:
        """WARNING for the first failure in a row: a program without logging set up shows it."""
        self._failures += 1
        return logging.WARNING if self._failures == 1 else logging.INFO

    def _is_final(self, error: FloorcastError) -> bool:
        """True if the next attempt cannot succeed.

        The token is forbidden, revoked or stays wrong, or an address never led to a server.
        """
        if isinstance(error, ForbiddenError | TokenRevoked):
            return True
        if isinstance(error, ConfigError):
            return not self._was_online
        if isinstance(error, AuthenticationError):
            self._bad_tokens += 1
            return not self._tokens.is_renewable or self._bad_tokens >= _MAX_BAD_TOKENS
        return False

    async def _maintain(self, connection: Connection) -> FloorcastError:
        """Join namespaces and renew tokens until the connection ends; returns why it ended."""
        now = asyncio.get_running_loop().time
        controls = self._controls
        while connection.close_reason is None:
            self._wake.clear()
            if controls.is_final or controls.is_reconnect_due:
                return ConnectionLost("the server asked to reconnect")
            if controls.renewal.is_due(now()):
                await self._renew_tokens(connection, controls.renewal)
                continue
            joins = [each.retry_at for each in self._namespaces.values() if each.needs_join]
            if joins and min(joins) <= now():
                await self._join_requested(connection)
                continue
            moments = (*joins, controls.reconnect_at, controls.renewal.next_attempt_at)
            try:
                async with asyncio.timeout_at(
                    min((each for each in moments if each is not None), default=None)
                ):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return connection.close_reason

    # --- joining, and tokens

    async def _join_namespaces(self, connection: Connection, token: str | None) -> None:
        """Join what is requested; raises if the server refused every namespace."""
        now = asyncio.get_running_loop().time
        refusal: FloorcastError | None = None
        for namespace in [each for each in self._namespaces.values() if each.needs_join]:
            if namespace.retry_at > now():
                continue
            try:
                await self._join(connection, namespace, token)
            except ConnectionLost:
                raise
            except FloorcastError as error:
                refusal = error
                if self._is_joined_anywhere(connection):
                    self._postpone_join(namespace, error, now())
        if refusal is not None and not self._is_joined_anywhere(connection):
            raise refusal

    async def _join(self, connection: Connection, namespace: Namespace, token: str | None) -> None:
        auth: dict[str, object] = {"recovery": False}
        if token is not None:
            auth["token"] = token
        await connection.join(namespace.name, auth)
        self._bad_tokens = 0
        self._backoff.set_connected(self._controls.spread_seconds)
        namespace.set_joined(connection)
        if self.state.change(ClientState.ONLINE):
            if self._failures:
                logger.info("online again after %d attempts", self._failures)
            self._failures = 0
            self._counters.reconnects += self._was_online
            self._was_online = True
            self.online.open()

    def _is_joined_anywhere(self, connection: Connection) -> bool:
        return any(each.connection is connection for each in self._namespaces.values())

    def _postpone_join(self, namespace: Namespace, error: FloorcastError, now: float) -> None:
        """Retry one namespace later, or fail it; the connection stays for the others."""
        if self._is_final(error):
            namespace.fail(error)
        else:
            after_ms = error.retry_after_ms or 0
            namespace.retry_at = now + after_ms / 1000 + self._backoff.next_seconds()

    async def _join_requested(self, connection: Connection) -> None:
        """Join namespaces on a live connection; a failure does not affect the joined ones."""
        try:
            token = await self._tokens.fetch()
        except TokenUnavailable as error:
            now = asyncio.get_running_loop().time()
            for namespace in [each for each in self._namespaces.values() if each.needs_join]:
                self._postpone_join(namespace, error, now)
            return
        await self._join_namespaces(connection, token)

    async def _renew_tokens(self, connection: Connection, renewal: TokenRenewal) -> None:
        """Send a newer token to each pending namespace; on failure, retry later.

        Without a newer token the server ends the connection when the old one expires.
        """
        if not self._tokens.is_renewable:
            renewal.cancel()
            return
        try:
            body = encode({"token": await self._tokens.fetch()})
            for name, expires_at in renewal.pending():
                await connection.request(
                    name, "refresh_token", body, lambda text: parse_reply(Reply, text)
                )
                renewal.set_renewed(name, expires_at)
        except FloorcastError as error:
            logger.warning("token renewal failed: %s", error, extra={"code": error.code})
            renewal.schedule_retry(asyncio.get_running_loop().time())

    # --- callbacks of the connection

    def _on_connection_end(self) -> None:
        """Close the gates at once: later requests wait for the next connection."""
        self.online.close()
        for namespace in self._namespaces.values():
            namespace.set_lost()
        self._wake.set()

    def _on_packet(self, connection: Connection, packet: Packet) -> None:
        namespace = self._namespaces.get(packet.namespace)
        if namespace is None:
            return
        if packet.type is PacketType.DISCONNECT:
            self._on_disconnect(namespace)
        elif not self._controls.handle(connection, packet):
            namespace.on_event(connection, packet)

    def _on_disconnect(self, namespace: Namespace) -> None:
        """Fail a namespace that the server ended; without any other, end the client."""
        goodbye = self._controls.pop_goodbye(namespace.name)
        namespace.set_lost()
        namespace.fail(error_from_code(goodbye.code, goodbye.message))
        if not any(
            each.is_requested and each.gate.error is None for each in self._namespaces.values()
        ):
            self._controls.goodbye = goodbye
            self._wake.set()
