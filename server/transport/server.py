"""The Socket.IO server: dispatches packets to the namespaces and sends replies as acks."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import socketio
from socketio import exceptions

from client_sdk.contract import ErrorCode
from server.core.disconnects import CLIENT_DISCONNECT, TRANSPORT_CLOSE, DisconnectReason
from server.core.errors import FloorcastError, RequestError
from server.core.recovery.offsets import Offsets
from server.core.wire.frames import text_frame
from server.core.wire.packets import (
    Packet,
    PacketKind,
    RawPacket,
    ack_packet,
    connect_error_packet,
)
from server.core.wire.strict_json import dumps
from server.ports import Clock
from server.tasks import TaskOwner
from server.transport import eager
from server.transport.admission import Admission
from server.transport.config import TransportConfig
from server.transport.connection import Connection
from server.transport.engine import STOCK_LOGGER, Engine
from server.transport.namespaces import NamespaceHandler, check_namespaces
from server.transport.polling import PollingCarrier
from server.transport.refusals import RefusalLog

logger = logging.getLogger(__name__)

# Raised by a namespace's connect handler to refuse a client, with a message and data.
ConnectionRefused = exceptions.ConnectionRefusedError

# When a refused client should come back, unless the refusal itself says when. With another code
# coming back alone changes nothing.
_RETRY_AFTER_MS = {
    ErrorCode.LIMIT_CONNECTIONS.value: 5_000,
    ErrorCode.SERVER_DRAINING.value: 1_000,
    ErrorCode.SERVER_OVERLOADED.value: 2_000,
    ErrorCode.SERVER_INTERNAL.value: 5_000,
}


@dataclass(frozen=True, slots=True)
class Accepted:
    """The result of an accepted CONNECT: the frames still to send and the connection id.

    A recovered client keeps its previous connection id, and its CONNECT is already sent.
    """

    first_frames: bytes
    connection_id: str


class SocketServer(socketio.AsyncServer):  # type: ignore[misc]
    """python-socketio's server over our engine; dispatches every event by `trigger_event`.

    A client that has not joined receives no events: only an accepted connect handler gets a
    link to write to.
    """

    eio: Engine

    def __init__(
        self,
        namespaces: Sequence[NamespaceHandler],
        *,
        config: TransportConfig,
        admission: Admission,
        offsets: Offsets,
        refusals: RefusalLog,
        clock: Clock,
        tasks: TaskOwner,
    ) -> None:
        self._make_engine = functools.partial(
            Engine,
            config=config,
            admission=admission,
            offsets=offsets,
            refusals=refusals,
            clock=clock,
            tasks=tasks,
        )
        check_namespaces(namespaces)
        super().__init__(
            # An empty list would open "/" without authentication.
            namespaces=[each.namespace for each in namespaces],
            async_mode="aiohttp",
            async_handlers=False,
            logger=STOCK_LOGGER,
        )
        self.eio.connection_events = self
        for namespace in namespaces:
            super().register_namespace(namespace)
        self._config = config
        self._tasks = tasks
        self._disconnect_tasks: set[asyncio.Task[None]] = set()

    def register_namespace(self, namespace_handler: object) -> None:
        """Raise `TypeError`: all namespaces are known when the server is built."""
        raise TypeError("pass namespaces to create_app: this server accepts none later")

    def _engineio_server_class(self) -> Callable[..., Engine]:
        return self._make_engine

    @property
    def connection_count(self) -> int:
        """The number of open Engine.IO connections, joined or not."""
        return len(self.eio.sockets)

    def polling_count(self) -> int:
        """The number of open connections that poll."""
        carriers = (each.carrier for each in self.eio.sockets.values())
        return sum(isinstance(carrier, PollingCarrier) for carrier in carriers)

    def connections(self) -> list[Connection]:
        """A copy of the list of open connections."""
        return list(self.eio.sockets.values())

    async def close_all(self, error: FloorcastError) -> None:
        """Disconnect every client, and wait at most twice `close_seconds` for the close."""
        for connection in self.connections():
            connection.disconnect(error, reconnect=True)
        await self.eio.wait_closed(self._config.close_seconds)
        if self._disconnect_tasks:
            await asyncio.wait(self._disconnect_tasks, timeout=self._config.close_seconds)

    # --- events of the engine

    def admit_event(self, connection: Connection, packet: RawPacket) -> bool:
        """Check an event against its client's rate limit; a refused one is answered at once."""
        sid = connection.sids.get(packet.namespace)
        if sid is None:
            # Ignored when it is handled.
            return True
        refusal = self.namespace_handlers[packet.namespace].charge(sid, packet)
        if refusal is None:
            return True
        body = {"ok": False, "error": refusal.body()}
        self._reply(connection, packet, packet.event_name, body)
        return False

    def on_packet(self, connection: Connection, packet: Packet) -> Awaitable[None]:
        """Dispatch a packet to its namespace."""
        if packet.kind is PacketKind.EVENT:
            return self._on_event(connection, packet)
        if packet.kind is PacketKind.CONNECT:
            return self._on_connect(connection, packet)
        if packet.kind is PacketKind.DISCONNECT:
            return self._on_disconnect(connection, packet)
        return self._on_ack(connection, packet)

    async def _on_disconnect(self, connection: Connection, packet: Packet) -> None:
        earlier = connection.order_last()
        if earlier is not None:
            await earlier
        self.on_namespace_closed(connection, packet.namespace, CLIENT_DISCONNECT)

    async def _on_ack(self, connection: Connection, packet: Packet) -> None:
        sid = connection.sids.get(packet.namespace)
        handler = self.namespace_handlers[packet.namespace]
        if sid is None or not handler.acknowledge(sid, packet.id):
            # A late or forged ack.
            connection.count_useless()

    async def _on_event(self, connection: Connection, packet: Packet) -> None:
        namespace = packet.namespace
        sid = connection.sids.get(namespace)
        if sid is None:
            # The client sent it before it knew that the namespace is closed.
            return
        event, *arguments = cast("list[Any]", packet.data)
        handler = self.namespace_handlers[namespace]
        reply = await handler.trigger_event(event, sid, *arguments)
        try:
            self._reply(connection, packet, event, reply)
        except Exception as failure:
            # The application's reply may hold what JSON cannot; nothing was written yet.
            self._reply(connection, packet, event, handler.failure_reply(event, failure))

    def _reply(
        self, connection: Connection, packet: Packet | RawPacket, event: str, reply: dict[str, Any]
    ) -> None:
        namespace = packet.namespace
        if packet.id is not None:
            ack = text_frame(ack_packet(namespace, packet.id, dumps(reply)))
            if self.namespace_handlers[namespace].echoes(event):
                connection.write_soon(ack)
            else:
                # Not joined with later writes: a client may process its awaited ack later than an
                # event that arrives in the same bytes.
                connection.write(ack)
        elif not reply["ok"]:
            error = dumps(reply["error"])
            connection.write(connection.event_frame(namespace, "error", error))

    async def _on_connect(self, connection: Connection, packet: Packet) -> None:
        namespace = packet.namespace
        if namespace in connection.sids:
            # Not the first CONNECT: it passes no event limit, but costs more than most events.
            connection.count_useless()
            if connection.closed:
                return
        joined = connection.sids.get(namespace)
        if joined is not None:
            # A page that mounts twice (React's StrictMode) connects again before the first answer,
            # which its socket may then have missed.
            connection.write(self.namespace_handlers[namespace].repeat_connect(joined))
            return
        try:
            if connection.refusal is not None:
                raise connection.refusal
            handler = self.namespace_handlers.get(namespace)
            if handler is None:
                raise RequestError(ErrorCode.REQUEST_INVALID, "unknown namespace")
        except FloorcastError as error:
            self._refuse(connection, namespace, error.message, error.body())
            return
        sid = self.eio.generate_id()
        try:
            accepted = await handler.trigger_event("connect", sid, connection, packet.data)
        except ConnectionRefused as refused:
            reason = refused.error_args
            self._refuse(connection, namespace, reason["message"], reason["data"])
            return
        connection.on_accepted(namespace, accepted.connection_id)
        if connection.closed:
            # It closed during the connect handler.
            self.on_namespace_closed(connection, namespace, TRANSPORT_CLOSE)
            return
        connection.write(accepted.first_frames)

    def _refuse(
        self, connection: Connection, namespace: str, message: str, body: dict[str, object]
    ) -> None:
        if body["code"] in _RETRY_AFTER_MS:
            body = {"retry_after_ms": _RETRY_AFTER_MS[str(body["code"])], **body}
        packet = connect_error_packet(namespace, message, body)
        connection.write(text_frame(packet))
        connection.count_refusal()

    def on_namespace_closed(
        self, connection: Connection, namespace: str, reason: DisconnectReason
    ) -> None:
        """End one namespace of a connection; a no-op if it is not joined."""
        sid = connection.sids.get(namespace)
        if sid is not None:
            connection.sids[namespace] = None
            self._trigger_disconnect(namespace, sid, reason)

    def on_closed(self, connection: Connection, reason: DisconnectReason) -> None:
        """End every joined namespace of a closed connection."""
        for namespace in connection.sids:
            self.on_namespace_closed(connection, namespace, reason)

    def _trigger_disconnect(self, namespace: str, sid: str, reason: DisconnectReason) -> None:
        rest = eager.start(self._disconnect(namespace, sid, reason))
        if rest is not None:
            task = self._tasks.start(rest, f"floorcast-leave-{sid}")
            self._disconnect_tasks.add(task)
            task.add_done_callback(self._disconnect_tasks.discard)

    async def _disconnect(self, namespace: str, sid: str, reason: DisconnectReason) -> None:
        try:
            await self.namespace_handlers[namespace].trigger_event("disconnect", sid, reason)
        except Exception:
            # The other namespaces must end all the same.
            logger.exception("a namespace failed to end a client", extra={"namespace": namespace})
