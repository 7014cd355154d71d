"""One client's Engine.IO connection: packets, namespaces, heartbeat and closing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from server.core.disconnects import (
    PROTOCOL_ERROR,
    SERVER_DISCONNECT,
    TRANSPORT_CLOSE,
    DisconnectReason,
)
from server.core.errors import FloorcastError
from server.core.limits.connections import ConnectionLease
from server.core.recovery.offsets import plain_frame
from server.core.wire.frames import text_frame
from server.core.wire.packets import (
    MalformedPacket,
    PacketKind,
    RawPacket,
    disconnect_packet,
    event_head,
    read_packet,
)
from server.core.wire.strict_json import dumps
from server.transport import trace
from server.transport.heartbeat import Health, Heartbeat
from server.transport.host import ConnectionHost
from server.transport.inbox import Inbox
from server.transport.links import Carrier
from server.transport.overlap import OrderKeys

logger = logging.getLogger(__name__)

PING = text_frame(b"2")
# Stock clients hardly ever send these packets; so many between two pings are an attack.
_MAX_USELESS = 64
# A refusal can cost a signature check; a joined client may be refused more often.
_MAX_REFUSALS = 3
_MAX_REFUSALS_WHEN_JOINED = 10
_MAX_DEFERRED_BYTES = 4096


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """The parts of the opening HTTP request that a connection keeps."""

    ip: str
    authorization: str | None = None
    query_token: str | None = None
    # None unless the application's authentication reads them.
    headers: Mapping[str, str] | None = None


def _discard(frames: bytes) -> None:
    """Drop the frames of a closed connection."""


class Connection:
    """One client below the namespaces; implements the `Link` port.

    `write` is the transport's own method, so that a delivery costs one call. It changes when a
    polling client upgrades, when the client does not read, and when writes are deferred or corked.
    """

    __slots__ = (
        "_carrier",
        "_deferred",
        "_heartbeat",
        "_host",
        "_inbox",
        "_refusal_count",
        "_useless_count",
        "_waiters",
        "accepts_plain",
        "clogged",
        "closed",
        "deflates",
        "fetched_namespaces",
        "is_posting",
        "lease",
        "offset_namespaces",
        "refusal",
        "request",
        "sid",
        "sids",
        "upgrading",
        "write",
    )

    def __init__(
        self,
        host: "ConnectionHost[Connection]",
        sid: str,
        request: ClientRequest,
        lease: ConnectionLease | None,
        refusal: FloorcastError | None,
        now: float,
    ) -> None:
        config = host.config
        self._host = host
        self.sid = sid
        self.request = request
        self.lease = lease
        self.refusal = refusal
        self.sids: dict[str, str | None] = {}
        # Connection state recovery: the namespaces whose events carry an offset.
        self.offset_namespaces: tuple[str, ...] = ()
        # The namespaces for which other nodes were asked for the client's parked state.
        self.fetched_namespaces: tuple[str, ...] = ()
        self.closed = False
        self.upgrading = False
        # A polling client has one POST request at a time.
        self.is_posting = False
        self.deflates = False
        self.clogged = False
        # Neither clogged nor compressed: the one flag that the hot path reads.
        self.accepts_plain = True
        self.write: Callable[[bytes], None] = _discard
        self._deferred = b""
        self._carrier: Carrier | None = None
        self._inbox = Inbox(self, host.fair_queue)
        self._useless_count = 0
        self._refusal_count = 0
        self._waiters: list[Callable[[], object]] | None = None
        join_seconds = config.join_timeout_seconds
        if refusal is not None:
            join_seconds = min(join_seconds, config.refused_seconds)
        self._heartbeat = Heartbeat(config, now, join_seconds)

    def __repr__(self) -> str:
        state = "closed" if self.closed else ",".join(self.sids) or "not joined"
        return f"<Connection {self.sid} {self.request.ip} {state}>"

    # --- carrier

    @property
    def carrier(self) -> Carrier | None:
        """The current carrier; None after it is lost."""
        return self._carrier

    def use_carrier(self, carrier: Carrier) -> None:
        """Switch to this carrier."""
        self._flush()
        self._carrier = carrier
        carrier.limit_messages(self.max_message_bytes)
        self.write = self._carrier_write()
        self.deflates = carrier.deflates
        self.accepts_plain = not (self.deflates or self.clogged)

    def _carrier_write(self) -> Callable[[bytes], None]:
        assert self._carrier is not None
        # Bytes are counted only while the client does not read: it is then checked for progress.
        write = self._carrier.write if self.clogged else self._carrier.plain_write
        return trace.traced(self.sid, write) if trace.is_tracing() else write

    def _choose_write(self) -> None:
        if self._carrier is not None and not (self.closed or self._deferred):
            self.write = self._carrier_write()

    @property
    def max_message_bytes(self) -> int:
        """The longest message that the client may send now."""
        config = self._host.config
        return config.message_bytes if self.sids else config.connect_bytes

    def on_accepted(self, namespace: str, connection_id: str) -> None:
        """Record that the client has joined a namespace."""
        self.sids[namespace] = connection_id
        self._choose_write()
        if self._carrier is not None:
            self._carrier.limit_messages(self.max_message_bytes)

    def write_soon(self, frames: bytes) -> None:
        """Write at the end of this loop iteration, joined with whatever is written until then.

        A message that its sender also receives then costs one write with the reply. Later writes
        keep their order behind it.
        """
        if self.closed:
            return
        if not self._deferred:
            self.write = self._write_after_deferred
            self._host.release_soon(self)
        self._deferred += frames
        if len(self._deferred) > _MAX_DEFERRED_BYTES:
            # Written bytes count against the buffer limit at once.
            self._flush()

    def hold(self, frames: bytes) -> None:
        if not self.closed:
            self.write = self._write_after_deferred
            self._deferred += frames

    def release(self) -> None:
        if self._deferred:
            self._flush()

    def cork(self) -> None:
        """Hold writes until the end of this loop iteration, up to the clog limit."""
        if not self.closed:
            self.write = self._write_corked
            asyncio.get_running_loop().call_soon(self._flush)

    def _write_corked(self, frames: bytes) -> None:
        self._deferred += frames
        if len(self._deferred) > self._host.config.clog_bytes:
            # Written bytes count against the buffer limit at once.
            self._flush()

    def _write_after_deferred(self, frames: bytes) -> None:
        self._deferred += frames
        self._flush()

    def _flush(self) -> None:
        deferred, self._deferred = self._deferred, b""
        if self._carrier is not None and not self.closed:
            self.write = self._carrier_write()
            if deferred:
                self.write(deferred)

    @property
    def joined(self) -> bool:
        """Whether the client has joined any namespace."""
        return any(self.sids.values())

    @property
    def busy(self) -> bool:
        """Whether a packet is being handled."""
        return self._inbox.busy

    def order_by(self, keys: Callable[[], OrderKeys]) -> Awaitable[None] | None:
        """Let later events overlap the current one; what to await first, None if nothing."""
        return self._inbox.order_by(keys)

    def order_last(self) -> Awaitable[None] | None:
        """What to await before the current packet is handled after all earlier ones, if any."""
        return self._inbox.order_last()

    @property
    def waiting_count(self) -> int:
        """The number of packets behind the one that is being handled."""
        return self._inbox.waiting_count

    @property
    def buffered_bytes(self) -> int:
        if self._carrier is None:
            return 0
        return self._carrier.buffered_bytes + len(self._deferred)

    @property
    def taken_bytes(self) -> int:
        return 0 if self._carrier is None else self._carrier.taken_bytes

    def when_writable(self, callback: Callable[[], object]) -> None:
        if not self.clogged:
            callback()
        elif self._waiters is None:
            self._waiters = [callback]
        else:
            self._waiters.append(callback)

    # --- packets from the client

    def on_text(self, text: str) -> None:
        if self.closed:
            return
        if trace.is_tracing():
            trace.log_received(self.sid, text)
        kind = text[:1]
        if kind == "4":
            self._on_message(text[1:])
        elif text == "3" and self._heartbeat.pong():
            self._useless_count = 0
        elif text == "1":
            self.on_close_request()
        else:
            self.on_violation("unexpected engine packet", 1002)

    def _on_message(self, text: str) -> None:
        try:
            packet = read_packet(text)
            if packet.kind is not PacketKind.EVENT:
                # Rare, and refused at once; an event is parsed when its turn comes.
                packet.decode()
        except MalformedPacket as malformed:
            self.on_violation(malformed.reason, 1002)
            return
        if packet.kind is not PacketKind.CONNECT and packet.namespace not in self.sids:
            # Socket.IO: a client sends no packet before its CONNECT is accepted. Events may
            # still be under way after a disconnect: left namespaces stay in `sids`.
            self.on_violation("a packet for a namespace that was not joined", 1002)
        elif packet.kind is not PacketKind.EVENT or self._host.admit_event(self, packet):
            self._inbox.put(packet)
        else:
            self._inbox.count_refused()

    def on_control_frame(self) -> None:
        self.count_useless()

    def count_useless(self) -> None:
        """Count a packet that stock clients hardly ever send; close after too many."""
        self._useless_count += 1
        if self._useless_count > _MAX_USELESS:
            self.on_violation("too many useless packets", 1008)

    def on_close_request(self) -> None:
        self.close(DisconnectReason("client closed"))

    def on_violation(self, reason: str, close_code: int) -> None:
        if not self.closed:
            self._host.refusals.record("protocol", reason, self.request.ip)
            self.close(PROTOCOL_ERROR, close_code)

    def on_clogged(self) -> None:
        self.clogged, self.accepts_plain = True, False
        self._choose_write()

    def on_writable(self) -> None:
        self.clogged, self.accepts_plain = False, not self.deflates
        self._choose_write()
        waiters, self._waiters = self._waiters, None
        for callback in waiters or ():
            callback()

    def on_lost(self) -> None:
        self._carrier = None
        self._end(TRANSPORT_CLOSE)
        self._host.unwatch(self)

    async def wait_idle(self) -> None:
        """Wait until every received packet is handled."""
        await self._inbox.wait_idle()

    async def handle(self, packet: RawPacket) -> None:
        """Handle a packet when its turn has come."""
        # A client that does not read its replies gets no more of them: its packets wait here,
        # and soon in the network.
        while self.clogged and self.buffered_bytes > self._host.config.buffer_bytes:
            await self._wait_writable()
        if self.closed:
            return
        try:
            decoded = packet.decode()
        except MalformedPacket as malformed:
            self.on_violation(malformed.reason, 1002)
            return
        await self._host.on_packet(self, decoded)

    async def _wait_writable(self) -> None:
        writable: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not writable.done():
                writable.set_result(None)

        self.when_writable(wake)
        await writable

    def pause_reading(self) -> None:
        """Stop reading from the client."""
        if self._carrier is not None:
            self._carrier.pause_reading()

    def resume_reading(self) -> None:
        """Read from the client again."""
        if self._carrier is not None:
            self._carrier.resume_reading()

    # --- heartbeat

    def check(self, now: float) -> None:
        """Act on an expired deadline and schedule the next check."""
        if self.closed:
            if self._carrier is not None:
                self._carrier.abort()
            return
        health = self._heartbeat.check(now, self._carrier, joined=self.joined, clogged=self.clogged)
        if health in (Health.PING_TIMEOUT, Health.NOT_READING):
            self.abort(health.value)
        elif health in (Health.NOT_JOINED, Health.REFUSED):
            self.close(DisconnectReason(health.value))
        else:
            if health is Health.PING_DUE:
                self.write(PING)
            self._host.watch(self, self.next_check())

    def next_check(self) -> float:
        """The time of the next `check`."""
        return self._heartbeat.next_check(joined=self.joined)

    # --- closing

    def count_refusal(self) -> None:
        """Count a refused CONNECT; close the connection soon after too many."""
        self._refusal_count += 1
        max_refusals = _MAX_REFUSALS_WHEN_JOINED if self.joined else _MAX_REFUSALS
        if self.refusal is not None or self._refusal_count >= max_refusals:
            self.close_soon()

    def close_soon(self) -> None:
        """Close after `leave_seconds`, unless the client closes first."""
        when = self._host.clock.monotonic() + self._host.config.leave_seconds
        if not self.closed and self._heartbeat.close_at(when):
            self._host.watch(self, when)

    def disconnect(
        self,
        error: FloorcastError,
        *,
        reconnect: bool,
        namespace: str | None = None,
        after_ms: int = 0,
    ) -> None:
        """Send a goodbye and close; with `namespace` close only that one if others are joined.

        Stock Socket.IO clients reconnect after a closed transport, but not after a DISCONNECT
        packet: it is sent if and only if `reconnect` is false.
        """
        if self.closed:
            return
        goodbye = dumps(
            {
                "code": error.wire_code,
                "message": error.message,
                "reconnect": reconnect,
                "after_ms": after_ms,
            }
        )
        joined = [name for name, sid in self.sids.items() if sid is not None]
        closing = [namespace] if namespace in joined and not reconnect else joined
        for name in closing:
            self.write(self.event_frame(name, "goodbye", goodbye))
            if not reconnect:
                self.write(text_frame(disconnect_packet(name)))
        if not reconnect:
            for name in closing:
                self._host.on_namespace_closed(self, name, SERVER_DISCONNECT)
        if len(closing) == len(joined):
            self.close(DisconnectReason(error.wire_code))

    def emit(self, event: str, body: dict[str, object]) -> None:
        """Send an event to every joined namespace."""
        for namespace, sid in self.sids.items():
            if sid is not None:
                self.write(self.event_frame(namespace, event, dumps(body)))

    def event_frame(self, namespace: str, event: str, body: bytes) -> bytes:
        """The frame of an event outside the log, with the current offset if the client uses it."""
        encoded = event_head(namespace, event, body)
        if namespace not in self.offset_namespaces:
            return plain_frame(encoded)
        offsets = self._host.offsets
        return offsets.frame(encoded, offsets.last_serial)

    def close(self, reason: DisconnectReason, close_code: int = 1000) -> None:
        """Close the connection after sending what is buffered, within `close_seconds`."""
        if self.closed:
            return
        self._flush()
        self._end(reason)
        if self._carrier is not None:
            now = self._host.clock.monotonic()
            self._host.watch(self, now + self._host.config.close_seconds)
            self._carrier.close(close_code)

    def abort(self, reason: str) -> None:
        """Close the connection now; buffered bytes are lost."""
        if not self.closed:
            logger.info(
                "aborted a connection: %s",
                reason,
                extra={"ip": self.request.ip, "connection": self.sid},
            )
        self._end(DisconnectReason(reason))
        if self._carrier is not None:
            self._carrier.abort()

    def _end(self, reason: DisconnectReason) -> None:
        if self.closed:
            return
        self.closed = True
        self.write = _discard
        self._waiters = None
        self._inbox.close()
        if self.lease is not None:
            self.lease.close()
        self._host.on_closed(self, reason)
