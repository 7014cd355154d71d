"""Owns the one connection: opens it, keeps it, and brings it back until the client is closed."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from client_sdk.connection.backoff import Backoff
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.controls import ControlEvents
from client_sdk.connection.namespaces import Gate, Namespace
from client_sdk.connection.packets import Packet, PacketType, encode
from client_sdk.connection.renewal import TokenRenewal
from client_sdk.connection.tokens import TokenFetcher
from client_sdk.connection.wire import Connection, OnPacket
from client_sdk.contract.replies import Reply, parse_reply
from client_sdk.errors import (
    AuthenticationError,
    ClientClosed,
    ConnectionLost,
    FloorcastError,
    ForbiddenError,
    ProtocolError,
    TokenUnavailable,
)
from client_sdk.states import ClientState, StateTracker
from client_sdk.stats import Counters

logger = logging.getLogger(__name__)

# A function that keeps giving tokens which the server does not take is as wrong as a wrong string.
_MAX_BAD_TOKENS = 3

Connect = Callable[[OnPacket], Awaitable[Connection]]


class Supervisor:
    """One task; everything else only says what it wants."""

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
        self.state = StateTracker()
        self.online = Gate()
        self.last_error: FloorcastError | None = None

    def namespace(self, name: str) -> Namespace:
        """A namespace of the connection."""
        namespace = self._namespaces[name] = Namespace(name, self._wake.set)
        return namespace

    def start(self) -> None:
        """Begin to connect."""
        self._task = asyncio.create_task(self._run(), name="floorcast-supervisor")

    async def close(self) -> None:
        """End the connection for good."""
        try:
            if self._connection is not None:
                await self._leave_namespaces(self._connection)
        finally:
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait([self._task])
            self._finish(ClientClosed("the client was closed"))

    async def _leave_namespaces(self, wire: Connection) -> None:
        """Say so: others see at once that we have gone, and need not wait for us."""
        try:
            for namespace in self._namespaces.values():
                if namespace.connection is wire:
                    await wire.leave(namespace.name)
        except (FloorcastError, TimeoutError):
            logger.debug("could not take leave")

    def _finish(self, error: FloorcastError) -> None:
        if self.state.change(ClientState.CLOSED):
            self.last_error = error
            self.online.fail(error)
            for namespace in self._namespaces.values():
                namespace.fail(error)

    # --- the life of the connection

    async def _run(self) -> None:
        try:
            while True:
                seconds = await self._run_connection()
                await asyncio.sleep(seconds)
        except FloorcastError as error:
            logger.warning("the client gave up", extra={"code": error.code})
            self._finish(error)
        except Exception as error:
            # An edge: whoever waits for this client must not wait for ever.
            logger.exception("the client failed")
            self._finish(ProtocolError(f"the client failed: {error!r}"))

    def _new_controls(self) -> ControlEvents:
        """To a connection of which nothing is known yet."""
        return ControlEvents(self._clock, TokenRenewal(self._backoff), self._wake.set)

    async def _run_connection(self) -> float:
        """One connection from its opening to its end; the delay before the next."""
        now = asyncio.get_running_loop().time
        self.state.change(ClientState.CONNECTING)
        self._controls = self._new_controls()
        began = None
        error: FloorcastError
        try:
            token = await self._tokens.fetch()
            wire = self._connection = await self._connect(self._on_packet)
            try:
                wire.on_end(self._on_connection_end)
                await self._join_namespaces(wire, token)
                began = now()
                error = await self._maintain(wire)
            finally:
                self._connection = None
                self._on_connection_end()
                await wire.close()
        except FloorcastError as failed:
            error = failed
        if began is not None:
            self._backoff.reset_if_stable(now() - began)
        return self._retry_delay_seconds(error)

    def _retry_delay_seconds(self, error: FloorcastError) -> float:
        """Raises the error where coming back would only repeat it."""
        controls = self._controls
        if controls.goodbye is not None and controls.is_final:
            raise controls.goodbye.to_error()
        if self._is_final(error):
            raise error
        self.last_error = error
        self.state.change(ClientState.OFFLINE)
        if controls.is_reconnect_due:
            # The server gave each client a moment of its own already.
            return 0.0
        told_ms = max(error.retry_after_ms or 0, controls.retry_after_ms)
        seconds = told_ms / 1000 + self._backoff.next_seconds()
        logger.info("offline", extra={"code": error.code, "seconds": round(seconds, 3)})
        return seconds

    def _is_final(self, error: FloorcastError) -> bool:
        """What the next attempt would not change: a token that may not, or that stays wrong."""
        if isinstance(error, ForbiddenError):
            return True
        if isinstance(error, AuthenticationError):
            self._bad_tokens += 1
            return not self._tokens.is_renewable or self._bad_tokens >= _MAX_BAD_TOKENS
        return False

    async def _maintain(self, wire: Connection) -> FloorcastError:
        """Do what the connection needs until it ends; why it did."""
        now = asyncio.get_running_loop().time
        controls = self._controls
        while wire.close_reason is None:
            self._wake.clear()
            if controls.is_final or controls.is_reconnect_due:
                return ConnectionLost("the server asked for it")
            if controls.renewal.is_due(now()):
                await self._refresh_tokens(wire, controls.renewal)
                continue
            lacking = [each.retry_at for each in self._namespaces.values() if each.needs_join]
            if lacking and min(lacking) <= now():
                await self._join_requested(wire)
                continue
            moments = (*lacking, controls.reconnect_at, controls.renewal.next_attempt_at)
            try:
                async with asyncio.timeout_at(
                    min((each for each in moments if each is not None), default=None)
                ):
                    await self._wake.wait()
            except TimeoutError:
                continue
        return wire.close_reason

    # --- joining, and tokens

    async def _join_namespaces(self, wire: Connection, token: str | None) -> None:
        """Join what is wanted; raises where no namespace would have us."""
        now = asyncio.get_running_loop().time
        refused: FloorcastError | None = None
        for namespace in [each for each in self._namespaces.values() if each.needs_join]:
            if namespace.retry_at > now():
                continue
            try:
                await self._join(wire, namespace, token)
            except ConnectionLost:
                raise
            except FloorcastError as error:
                refused = error
                if self._is_joined_anywhere(wire):
                    self._postpone_join(namespace, error, now())
        if refused is not None and not self._is_joined_anywhere(wire):
            raise refused

    async def _join(self, wire: Connection, namespace: Namespace, token: str | None) -> None:
        auth: dict[str, object] = {"recovery": False}
        if token is not None:
            auth["token"] = token
        await wire.join(namespace.name, auth)
        self._bad_tokens = 0
        namespace.set_joined(wire)
        if self.state.change(ClientState.ONLINE):
            self._counters.reconnects += self._was_online
            self._was_online = True
            self.online.open()

    def _is_joined_anywhere(self, wire: Connection) -> bool:
        return any(each.connection is wire for each in self._namespaces.values())

    def _postpone_join(self, namespace: Namespace, error: FloorcastError, now: float) -> None:
        """The others are there and stay; this one is given up, or tried again later."""
        if self._is_final(error):
            namespace.fail(error)
        else:
            after_ms = error.retry_after_ms or 0
            namespace.retry_at = now + after_ms / 1000 + self._backoff.next_seconds()

    async def _join_requested(self, wire: Connection) -> None:
        """Join what is wanted by now; those that are there stay, whatever comes of it."""
        try:
            token = await self._tokens.fetch()
        except TokenUnavailable as error:
            now = asyncio.get_running_loop().time()
            for namespace in [each for each in self._namespaces.values() if each.needs_join]:
                self._postpone_join(namespace, error, now)
            return
        await self._join_namespaces(wire, token)

    async def _refresh_tokens(self, wire: Connection, renewal: TokenRenewal) -> None:
        """Go on with a newer token; where there is none, the server ends the connection."""
        if not self._tokens.is_renewable:
            renewal.cancel()
            return
        try:
            body = encode({"token": await self._tokens.fetch()})
            for name in renewal.pending():
                await wire.request(
                    name, "refresh_token", body, lambda text: parse_reply(Reply, text)
                )
                renewal.set_renewed(name)
        except FloorcastError as error:
            logger.warning("the token was not refreshed", extra={"code": error.code})
            renewal.schedule_retry(asyncio.get_running_loop().time())

    # --- what the connection says

    def _on_connection_end(self) -> None:
        """At once: what is sent from now on has to wait for the next connection."""
        self.online.close()
        for namespace in self._namespaces.values():
            namespace.set_lost()
        self._wake.set()

    def _on_packet(self, wire: Connection, packet: Packet) -> None:
        namespace = self._namespaces.get(packet.namespace)
        if namespace is None:
            return
        if packet.type is PacketType.DISCONNECT:
            self._on_disconnect(namespace)
        elif not self._controls.handle(wire, packet):
            namespace.on_event(wire, packet)

    def _on_disconnect(self, namespace: Namespace) -> None:
        """The server ended one namespace, and does not want us back in it."""
        farewell = self._controls.pop_goodbye(namespace.name)
        namespace.set_lost()
        namespace.fail(farewell.to_error())
        if not any(
            each.is_requested and each.gate.error is None for each in self._namespaces.values()
        ):
            self._controls.goodbye = farewell
            self._wake.set()
