"""The Engine.IO v4 server: turns HTTP requests into connections and checks their deadlines."""

import asyncio
import logging
import math
from collections.abc import Awaitable
from typing import Any, NamedTuple, Protocol

import engineio
from aiohttp import web

from client_sdk.contract import ErrorCode
from server.core.deadlines import Deadlines
from server.core.disconnects import DisconnectReason
from server.core.errors import FloorcastError
from server.core.recovery.offsets import Offsets
from server.core.wire.frames import text_frame
from server.core.wire.packets import Packet, RawPacket
from server.core.wire.payloads import MalformedPayload, decode_payload, encode_payload
from server.core.wire.strict_json import dumps
from server.ports import Clock
from server.tasks import TaskOwner
from server.transport.admission import Admission
from server.transport.config import TransportConfig
from server.transport.connection import ClientRequest, Connection
from server.transport.fair_queue import FairQueue
from server.transport.handshake import HandshakeRequest
from server.transport.host import Watched
from server.transport.origins import OriginPolicy, is_loopback
from server.transport.polling import OverlappingPoll, PollingCarrier
from server.transport.proxies import TrustedProxies, outermost
from server.transport.refusals import RefusalLog
from server.transport.takeover import (
    BadHandshake,
    accept_key,
    offers_deflate,
    switch_protocols,
    take_over,
)
from server.transport.upgrade import Probe
from server.transport.websocket import WebSocketCarrier

# python-engineio logs every packet at INFO, and adds a handler to a logger without one.
STOCK_LOGGER = logging.getLogger("server.transport.stock")
STOCK_LOGGER.setLevel(logging.WARNING)

# Engine.IO's error codes for a refused request; stock clients print the message.
_UNKNOWN_TRANSPORT = (0, "Transport unknown")
_NO_POLLING = (0, 'no polling here: connect with transports: ["websocket"]')
_UNKNOWN_SESSION = (1, "Session ID unknown")
_BAD_METHOD = (2, "Bad handshake method")
_BAD_REQUEST = (3, "Bad request")
_FORBIDDEN = (4, "Forbidden")
_BAD_VERSION = (5, "Unsupported protocol version")

_CLOSE = text_frame(b"1")
_NOOP = b"6"

# Where a refusing response keeps its code and reason for the log.
_REFUSAL: web.ResponseKey[tuple[str, str]] = web.ResponseKey("floorcast_refusal", tuple)
_MAX_ORIGIN_LENGTH = 200


AnyRequest = web.Request | HandshakeRequest


class _Address(NamedTuple):
    """What a browser asked for; `loopback` if it did so on this machine itself."""

    scheme: str
    host: str
    loopback: bool


class ConnectionEvents(Protocol):
    """The Socket.IO layer above the connections.

    Example: on `on_closed(connection, TRANSPORT_CLOSE)` it ends every joined namespace. An
    implementation that misses a call leaks the client's subscriptions.
    """

    def admit_event(self, connection: Connection, packet: RawPacket) -> bool:
        """Check an event when it is received; False if it was refused, and answered.

        The event of a joined namespace; it may wait before `on_packet` handles it.
        """

    def on_packet(self, connection: Connection, packet: Packet) -> Awaitable[None]:
        """Handle a well-formed packet; one at a time for a connection, in order."""

    def on_namespace_closed(
        self, connection: Connection, namespace: str, reason: DisconnectReason
    ) -> None:
        """End one namespace; the connection stays open. Called again, it must be a no-op."""

    def on_closed(self, connection: Connection, reason: DisconnectReason) -> None:
        """End all namespaces of a closed connection; called exactly once, must not raise."""


class Engine(engineio.AsyncServer):  # type: ignore[misc]
    """python-engineio's server with our own request handling, sockets and timers."""

    connection_events: ConnectionEvents

    def __init__(
        self,
        *,
        config: TransportConfig,
        admission: Admission,
        offsets: Offsets,
        refusals: RefusalLog,
        clock: Clock,
        tasks: TaskOwner,
        **options: Any,
    ) -> None:
        super().__init__(monitor_clients=False, logger=STOCK_LOGGER, **options)
        self.config = config
        self.offsets = offsets
        self.refusals = refusals
        self.clock = clock
        self.fair_queue = FairQueue(clock, tasks)
        self._admission = admission
        self._proxies = TrustedProxies(config.trusted_proxies)
        self._origins = OriginPolicy(config.origins)
        self._deadlines: Deadlines[Watched] = Deadlines()
        self._handshake_tail = (
            f'"pingInterval":{int(config.ping_interval_seconds * 1000)},'
            f'"pingTimeout":{int(config.ping_timeout_seconds * 1000)},'
            f'"maxPayload":{config.message_bytes}}}'
        )
        self._all_closed: asyncio.Event | None = None
        # With writes that wait for the end of this turn of the loop.
        self._unreleased: list[Connection] = []
        # Connections since the start.
        self.opened = 0

    # --- requests

    async def handle_request(self, request: web.Request) -> web.StreamResponse:
        """Serve one Engine.IO HTTP request."""
        origin = request.headers.get("Origin")
        asked = self._address_of(request)
        if not self._allows(origin, asked):
            reason = f"server.origins does not allow {str(origin)[:_MAX_ORIGIN_LENGTH]!r}"
            self.refusals.record("origin", reason, self._client_ip(request))
            return _refuse(_FORBIDDEN, status=403)
        response = await self._route(request)
        if response.status >= 400 and _REFUSAL in response:
            code, reason = response[_REFUSAL]
            self.refusals.record(code, reason, self._client_ip(request))
        if origin is not None and not response.prepared and response.status != 101:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Vary"] = "Origin"
        return response

    def admits_page_of(self, request: web.Request) -> bool:
        """Whether a page that is served at the address of this request may connect."""
        asked = self._address_of(request)
        return self._allows(f"{asked.scheme}://{asked.host}", asked)

    def allows_origin_of(self, request: web.Request) -> bool:
        """Whether the page that sent a request may connect; True if no page did."""
        return self._allows(request.headers.get("Origin"), self._address_of(request))

    def _allows(self, origin: str | None, asked: _Address) -> bool:
        return self._origins.allows(
            origin, scheme=asked.scheme, host=asked.host, loopback=asked.loopback
        )

    def _address_of(self, request: AnyRequest) -> _Address:
        peer, scheme, host = request.remote or "", request.scheme, request.host
        trusted = self._proxies.trusts(peer)
        if trusted:
            headers = request.headers
            scheme = outermost(headers.getall("X-Forwarded-Proto", ())) or scheme
            host = outermost(headers.getall("X-Forwarded-Host", ())) or host
        # A trusted proxy forwards the name that its own client asked for.
        return _Address(scheme, host, not trusted and is_loopback(peer))

    async def _route(self, request: web.Request) -> web.StreamResponse:
        if request.method == "OPTIONS":
            return web.Response(
                status=204,
                headers={
                    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
                    "Access-Control-Allow-Headers": "Authorization, Content-Type",
                },
            )
        query = request.query
        transport = query.get("transport")
        if transport not in self.config.transports:
            return _refuse(_NO_POLLING if transport == "polling" else _UNKNOWN_TRANSPORT)
        if query.get("EIO") != "4":
            return _refuse(_BAD_VERSION)
        sid = query.get("sid")
        if sid is None:
            if request.method != "GET":
                return _refuse(_BAD_METHOD)
            return await self._open(request, transport)
        connection = self.sockets.get(sid)
        if connection is None:
            closed_for = self._admission.drain_error
            # While draining answer 503: a proxy can retry on the node that has the session.
            return (
                _refuse(_UNKNOWN_SESSION) if closed_for is None else _refuse_connection(closed_for)
            )
        polling = connection.carrier
        if not isinstance(polling, PollingCarrier):
            return _refuse(_BAD_REQUEST)
        if transport == "websocket":
            return self._upgrade(request, connection)
        if request.method == "GET":
            return await self._poll(connection, polling)
        return await self._post(request, connection)

    async def _open(self, request: web.Request, transport: str) -> web.StreamResponse:
        accept, deflates = "", False
        if transport == "websocket":
            try:
                accept, deflates = self._read_handshake(request)
            except BadHandshake:
                return _refuse(_BAD_REQUEST)
        try:
            connection = await self._admit(request)
        except FloorcastError as error:
            return _refuse_connection(error)
        if transport == "polling":
            connection.use_carrier(PollingCarrier(connection, clog_bytes=self.config.clog_bytes))
            return _packets([self._open_packet(connection, upgrades=True)])
        try:
            return take_over(
                request,
                self._use_websocket(connection, deflates=deflates),
                accept=accept,
                deflate=deflates,
                max_unsent_bytes=self.config.max_unsent_bytes,
                first_frames=text_frame(self._open_packet(connection, upgrades=False)),
            )
        except ConnectionResetError:
            # The client has left; an exception here would only log a traceback.
            connection.on_lost()
            return _refuse(_BAD_REQUEST)

    async def open_websocket(
        self, request: HandshakeRequest, transport: asyncio.Transport, early: bytes
    ) -> bool:
        """Accept a handshake and take the transport over; False if aiohttp must answer it.

        What would be refused on HTTP is left to `handle_request`, which also logs it.
        """
        if not self._is_accepted(request):
            return False
        try:
            accept, deflates = self._read_handshake(request)
            connection = await self._admit(request)
        except (BadHandshake, FloorcastError):
            return False
        if transport.is_closing():
            # It left while other nodes were asked.
            connection.on_lost()
            return True
        switch_protocols(
            transport,
            self._use_websocket(connection, deflates=deflates),
            accept=accept,
            deflate=deflates,
            first_frames=text_frame(self._open_packet(connection, upgrades=False)),
            early=early,
        )
        return True

    def _is_accepted(self, request: HandshakeRequest) -> bool:
        """Whether `handle_request` would open a WebSocket connection, if the limits allow it."""
        query = request.query
        return (
            query.get("transport") == "websocket"
            and "websocket" in self.config.transports
            and query.get("EIO") == "4"
            and "sid" not in query
            and not self._admission.refuses_on_http
            and self._allows(request.headers.get("Origin"), self._address_of(request))
        )

    def _read_handshake(self, request: AnyRequest) -> tuple[str, bool]:
        """The accept key, and whether to compress; raises `BadHandshake`."""
        accept = accept_key(request)
        return accept, self.config.compression and offers_deflate(request)

    async def _admit(self, request: AnyRequest) -> Connection:
        """Open a connection, perhaps only to refuse it; raises the error to refuse it on HTTP."""
        origin = self._client_request(request)
        lease, refusal = await self._admission.admit(origin.ip)
        if refusal is not None:
            self.refusals.record(refusal.code.value, refusal.message, origin.ip)
        now = self.clock.monotonic()
        connection = Connection(self, self.generate_id(), origin, lease, refusal, now)
        self.sockets[connection.sid] = connection
        self.opened += 1
        self.watch(connection, connection.next_check())
        return connection

    def _use_websocket(self, connection: Connection, *, deflates: bool) -> WebSocketCarrier:
        carrier = WebSocketCarrier(
            connection,
            max_message_bytes=self.config.connect_bytes,
            clog_bytes=self.config.clog_bytes,
            deflates=deflates,
        )
        connection.use_carrier(carrier)
        return carrier

    def _client_ip(self, request: AnyRequest) -> str:
        forwarded = request.headers.getall("X-Forwarded-For", None)
        return self._proxies.client_address(
            request.remote or "", None if forwarded is None else ",".join(forwarded)
        )

    def _client_request(self, request: AnyRequest) -> ClientRequest:
        return ClientRequest(
            ip=self._client_ip(request),
            authorization=request.headers.get("Authorization"),
            query_token=request.query.get("token") if self.config.token_in_query else None,
            headers=request.headers if self.config.keep_headers else None,
        )

    def _open_packet(self, connection: Connection, *, upgrades: bool) -> bytes:
        can_upgrade = upgrades and "websocket" in self.config.transports
        upgrade_list = '["websocket"]' if can_upgrade else "[]"
        return (
            f'0{{"sid":"{connection.sid}","upgrades":{upgrade_list},{self._handshake_tail}'.encode()
        )

    def _upgrade(self, request: web.Request, connection: Connection) -> web.StreamResponse:
        if connection.upgrading:
            return _refuse(_BAD_REQUEST)
        try:
            accept = accept_key(request)
        except BadHandshake:
            return _refuse(_BAD_REQUEST)
        deflates = self.config.compression and offers_deflate(request)
        probe = Probe(self, connection, deflates=deflates)
        try:
            response = take_over(
                request,
                probe.carrier,
                accept=accept,
                deflate=deflates,
                max_unsent_bytes=self.config.max_unsent_bytes,
            )
        except ConnectionResetError:
            return _refuse(_BAD_REQUEST)
        probe.begin(self.clock.monotonic())
        return response

    async def _poll(self, connection: Connection, polling: PollingCarrier) -> web.StreamResponse:
        try:
            packets = await polling.poll()
        except OverlappingPoll:
            # Engine.IO: the first one gets a close packet.
            polling.write(_CLOSE)
            connection.on_violation("two polls at once", 1002)
            return _refuse(_BAD_REQUEST)
        except asyncio.CancelledError:
            connection.close(DisconnectReason("left while polling"))
            raise
        # Engine.IO: a poll that waits when the client closes gets a noop packet.
        return _packets(packets or [_NOOP])

    async def _post(self, request: web.Request, connection: Connection) -> web.StreamResponse:
        if connection.is_posting:
            # Stock clients wait for the response to a POST before they send the next.
            connection.on_violation("two POST requests at once", 1008)
            return _refuse(_BAD_REQUEST)
        connection.is_posting = True
        try:
            return await self._handle_post(request, connection)
        finally:
            connection.is_posting = False

    async def _handle_post(
        self, request: web.Request, connection: Connection
    ) -> web.StreamResponse:
        try:
            async with asyncio.timeout(self.config.body_timeout_seconds):
                body = await self._read_body(request, connection.max_message_bytes)
            packets = decode_payload(body, max_packets=self.config.polling_packets)
        except TimeoutError:
            connection.on_violation("slow body", 1008)
            return _refuse(_BAD_REQUEST)
        except MalformedPayload as malformed:
            connection.on_violation(malformed.reason, 1002)
            return _refuse(_BAD_REQUEST)
        for packet in packets:
            connection.on_text(packet)
        await connection.wait_idle()
        # Engine.IO "1" closes: the response to an orderly close is still "ok".
        if connection.closed and packets[-1] != "1":
            return _refuse(_BAD_REQUEST)
        return web.Response(text="ok")

    async def _read_body(self, request: web.Request, limit: int) -> bytes:
        if request.content_length is not None and request.content_length > limit:
            raise MalformedPayload("body too large")
        body = bytearray()
        async for chunk in request.content.iter_any():
            body += chunk
            if len(body) > limit:
                raise MalformedPayload("body too large")
        return bytes(body)

    # --- connections

    def admit_event(self, connection: Connection, packet: RawPacket) -> bool:
        return self.connection_events.admit_event(connection, packet)

    def on_packet(self, connection: Connection, packet: Packet) -> Awaitable[None]:
        return self.connection_events.on_packet(connection, packet)

    def on_namespace_closed(
        self, connection: Connection, namespace: str, reason: DisconnectReason
    ) -> None:
        self.connection_events.on_namespace_closed(connection, namespace, reason)

    def on_closed(self, connection: Connection, reason: DisconnectReason) -> None:
        if self.sockets.pop(connection.sid, None) is not None:
            if connection.refusal is not None:
                self._admission.release_refused()
            self.connection_events.on_closed(connection, reason)

    def release_soon(self, connection: Connection) -> None:
        # One callback for all: each costs a system call on uvloop.
        if not self._unreleased:
            asyncio.get_running_loop().call_soon(self._release)
        self._unreleased.append(connection)

    def _release(self) -> None:
        unreleased, self._unreleased = self._unreleased, []
        for connection in unreleased:
            try:
                connection.release()
            except (OSError, RuntimeError):
                connection.abort("a write failed")

    # --- time

    def watch(self, watched: Watched, when: float) -> None:
        """Call `watched.check` at this time; replaces the time set before."""
        self._deadlines.set(watched, when)

    def unwatch(self, watched: Watched) -> None:
        """Cancel the scheduled check of a closed connection or probe."""
        self._deadlines.cancel(watched)
        if self._all_closed is not None and not self._deadlines:
            self._all_closed.set()

    @property
    def watched_count(self) -> int:
        """The number of connections and probes that are open or still closing."""
        return len(self._deadlines)

    async def wait_closed(self, timeout_seconds: float) -> None:
        """Wait until every connection is closed; abort those still open after the timeout."""
        self._all_closed = asyncio.Event()
        try:
            if self._deadlines:
                async with asyncio.timeout(timeout_seconds):
                    await self._all_closed.wait()
        except TimeoutError:
            for watched in self._deadlines.pop_due(math.inf):
                watched.check(math.inf)

    def tick(self) -> None:
        """Check every connection whose time has come."""
        now = self.clock.monotonic()
        for watched in self._deadlines.pop_due(now):
            watched.check(now)
        self.refusals.tick()


def _refuse(error: tuple[int, str], *, status: int = 400) -> web.Response:
    code, message = error
    response = _json({"code": code, "message": message}, status=status)
    response[_REFUSAL] = ("protocol", message)
    return response


def _refuse_connection(error: FloorcastError) -> web.Response:
    draining = error.code is ErrorCode.SERVER_DRAINING
    response = _json(error.body(), status=503 if draining else 429)
    response[_REFUSAL] = (error.code.value, error.message)
    if error.retry_after_ms is not None:
        response.headers["Retry-After"] = str(-(-error.retry_after_ms // 1000))
    if draining:
        # The proxy then opens a new connection, which can reach another node.
        response.force_close()
    return response


def _json(body: object, *, status: int) -> web.Response:
    return web.Response(body=dumps(body), status=status, content_type="application/json")


def _packets(packets: list[bytes]) -> web.Response:
    return web.Response(body=encode_payload(packets), content_type="text/plain", charset="utf-8")
