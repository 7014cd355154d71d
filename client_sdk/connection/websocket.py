"""One connection: a WebSocket that carries Engine.IO and Socket.IO packets."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import aiohttp
from pydantic import ValidationError

from client_sdk.config import ClientConfig, HttpOptions
from client_sdk.connection.packets import (
    PONG,
    Packet,
    PacketType,
    ack_packet,
    connect_packet,
    decode_packet,
    disconnect_packet,
    event_packet,
    parse_handshake,
)
from client_sdk.contract import Stream
from client_sdk.contract.replies import ConnectError
from client_sdk.errors import (
    ConfigError,
    ConnectionLost,
    FloorcastError,
    ProtocolError,
    SendTimeout,
    ServerUnavailable,
    error_from_body,
)

# Sync, and called in wire order: a reply takes effect before the event behind it.
OnPacket = Callable[["Connection", Packet], None]
ResultT = TypeVar("ResultT")

_PATH = "/socket.io/?EIO=4&transport=websocket"
# Far above the largest replies, which are histories.
_MAX_FRAME_BYTES = 64 * 1024 * 1024
# A loop that reads buffered frames yields to other tasks after so many prices, of which a reader
# keeps the newest one only. Other messages stay in memory until they are read, and Python's garbage
# collector walks over all that is there: with 128 of them it took a third of the CPU.
_FRAMES_PER_YIELD = 128
_KEPT_FRAMES_PER_YIELD = 32
# What another web server answers; a proxy without a live server behind it sends others.
_NO_SERVER_STATUSES = frozenset((200, 400, 404, 405))
# Half of what a server allows between two of its own pings.
_MAX_PINGS = 32


class _PendingRequest:
    """A request that waits for its reply, which is parsed on arrival."""

    __slots__ = ("future", "parse", "sent_at")

    def __init__(self, parse: Callable[[str], Any]) -> None:
        loop = asyncio.get_running_loop()
        self.parse = parse
        self.sent_at = loop.time()
        self.future: asyncio.Future[Any] = loop.create_future()

    def resolve(self, body: str) -> None:
        if self.future.done():
            return
        try:
            self.future.set_result(self.parse(body))
        except FloorcastError as error:
            self.future.set_exception(error)

    def fail(self, error: FloorcastError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def consume_error(self) -> None:
        """Mark an error as retrieved, or asyncio would log it."""
        if self.future.done() and not self.future.cancelled():
            self.future.exception()


class Connection:
    """Owns a WebSocket and the task that reads it; `close_reason` is set once it has ended."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        timeout_seconds: float,
        on_packet: OnPacket,
        config: ClientConfig,
    ) -> None:
        self._socket = socket
        # Two limits: for a packet, which a live server sends by itself, and for any frame.
        self._timeout_seconds = timeout_seconds
        self._silence_seconds = _silence_seconds(timeout_seconds, config)
        self._on_packet = on_packet
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._ack_ids = itertools.count()
        self._requests: dict[int, _PendingRequest] = {}
        self._pending_joins: dict[str, _PendingRequest] = {}
        self._received_at = self._loop.time()
        # When a ping was sent into the silence, and when a control frame came.
        self._pinged_at = self._control_at = float("-inf")
        self._silence_timer: asyncio.TimerHandle | None = None
        self._on_end: Callable[[], None] = lambda: None
        self.close_reason: FloorcastError | None = None
        self._read_task = asyncio.create_task(self._read(), name="floorcast-read")

    @staticmethod
    async def open(
        http: aiohttp.ClientSession,
        url: str,
        on_packet: OnPacket,
        config: ClientConfig,
        options: HttpOptions,
    ) -> "Connection":
        """Connect and read the Engine.IO handshake.

        Raises `ServerUnavailable`, or `ConfigError` if the address cannot be right.
        """
        socket = None
        try:
            async with asyncio.timeout(config.connect_seconds):
                socket = await http.ws_connect(
                    url + _PATH,
                    compress=0,
                    proxy=options.proxy,
                    ssl=options.ssl,
                    headers=options.headers,
                    # A pong ends a silence, so it must be seen here.
                    autoping=False,
                    max_msg_size=_MAX_FRAME_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=config.close_seconds),
                )
                frame = await socket.receive()
            if frame.type is not aiohttp.WSMsgType.TEXT:
                raise ServerUnavailable("the server closed the WebSocket")
            packet = decode_packet(frame.data)
            if packet.type is not PacketType.OPEN:
                raise ProtocolError("the server sent no Engine.IO handshake")
            handshake = parse_handshake(packet.body)
            return Connection(socket, handshake.timeout_seconds, on_packet, config)
        except BaseException as error:
            if socket is not None:
                await _close_socket(socket, config.close_seconds)
            if isinstance(error, TimeoutError):
                raise ServerUnavailable(
                    f"no connection within {config.connect_seconds:g} s"
                ) from None
            if isinstance(error, aiohttp.ClientError | OSError | ValueError):
                raise _connect_error(url, error) from error
            raise

    # --- sending

    async def join(self, namespace: str, auth: Mapping[str, object]) -> None:
        """Join a namespace; raises the server's refusal, or `SendTimeout`."""
        join = self._pending_joins[namespace] = _PendingRequest(lambda body: None)
        try:
            await self._send_request(connect_packet(namespace, auth), join)
        finally:
            del self._pending_joins[namespace]

    def join_elapsed_seconds(self, namespace: str) -> float:
        """The time since the pending join was sent; 0 if none is pending."""
        join = self._pending_joins.get(namespace)
        return 0.0 if join is None else self._loop.time() - join.sent_at

    async def request(
        self, namespace: str, event: str, body: str, parse: Callable[[str], ResultT]
    ) -> ResultT:
        """Send an event and return its parsed reply; `parse` runs in wire order.

        Raises `ConnectionLost`, `SendTimeout`, or what `parse` raises.
        """
        ack_id = next(self._ack_ids)
        request = self._requests[ack_id] = _PendingRequest(parse)
        try:
            await self._send_request(event_packet(namespace, ack_id, event, body), request)
            result: ResultT = request.future.result()
        finally:
            self._requests.pop(ack_id, None)
        return result

    async def _send_request(self, text: str, request: _PendingRequest) -> None:
        try:
            async with asyncio.timeout(self._config.answer_seconds):
                await self._send(text)
                await request.future
        except TimeoutError:
            message = f"no reply within {self._config.answer_seconds:g} s"
            if self._heard_at < request.sent_at:
                # Nothing at all has arrived since: the connection leads nowhere.
                self._end(ConnectionLost(message))
            raise SendTimeout(message) from None
        finally:
            request.consume_error()

    async def acknowledge(self, namespace: str, ack_id: int) -> None:
        """Acknowledge an event of the server; raises `TimeoutError`."""
        async with asyncio.timeout(self._config.answer_seconds):
            await self._send(ack_packet(namespace, ack_id))

    async def leave(self, namespace: str) -> None:
        """Disconnect from a namespace on purpose, which ends recovery; raises `TimeoutError`."""
        async with asyncio.timeout(self._config.close_seconds):
            await self._send(disconnect_packet(namespace))

    async def _send(self, text: str) -> None:
        if self.close_reason is not None:
            raise self.close_reason.clone()
        try:
            await self._socket.send_str(text)
        except (aiohttp.ClientError, ConnectionError) as error:
            lost = ConnectionLost("the connection was lost")
            self._end(lost)
            raise lost from error

    # --- receiving

    def on_end(self, callback: Callable[[], None]) -> None:
        """Set the function to call once the connection has ended."""
        self._on_end = callback

    async def _read(self) -> None:
        reason: FloorcastError = ConnectionLost("the connection was lost")
        try:
            while await self._receive_until_silent():
                await self._ping()
        except TimeoutError:
            silent_seconds = self._loop.time() - self._heard_at
            reason = ConnectionLost(f"the server was silent for {silent_seconds:.1f} s")
        except FloorcastError as error:
            reason = error
        finally:
            self._end(reason)

    async def _receive_until_silent(self) -> bool:
        """Receive; True if a ping is due, False if the socket has ended.

        Raises `TimeoutError` if a ping was not answered either, or no packet came in time.
        """
        try:
            async with asyncio.timeout(None) as timeout:
                self._check_silence(timeout)
                await self._receive()
        except TimeoutError:
            if self._is_pinged or self._received_at + self._timeout_seconds <= self._loop.time():
                raise
            return True
        return False

    @property
    def _heard_at(self) -> float:
        """When anything was received last."""
        return max(self._received_at, self._control_at)

    @property
    def _is_pinged(self) -> bool:
        """True if a ping was sent since."""
        return self._pinged_at > self._heard_at

    async def _ping(self) -> None:
        """Send a WebSocket ping (RFC 6455, 5.5.2), which any server answers."""
        self._pinged_at = self._loop.time()
        async with asyncio.timeout(self._silence_seconds / 2):
            try:
                await self._socket.ping()
            except (aiohttp.ClientError, ConnectionError) as error:
                raise ConnectionLost("the connection was lost") from error

    async def _receive(self) -> None:
        receive, now, on_packet = self._socket.receive, self._loop.time, self._on_packet
        # Each lookup of a member costs as much as a call.
        text, event, price = aiohttp.WSMsgType.TEXT, PacketType.EVENT, Stream.PRICE.event
        weight, room = _FRAMES_PER_YIELD // _KEPT_FRAMES_PER_YIELD, _FRAMES_PER_YIELD
        while True:
            frame = await receive()
            if frame.type is not text:
                if not await self._handle_control(frame):
                    return
                continue
            self._received_at = now()
            packet = decode_packet(frame.data)
            if packet.type is event:
                on_packet(self, packet)
                # A namespace counts as joined at its `welcome`, not at its CONNECT packet.
                if packet.event == "welcome" and packet.namespace in self._pending_joins:
                    self._pending_joins[packet.namespace].resolve("")
            elif packet.type is PacketType.PING:
                await self._send(PONG)
            elif packet.type is PacketType.CLOSE:
                return
            else:
                self._dispatch(packet)
            room -= 1 if packet.event == price else weight
            if room <= 0:
                room = _FRAMES_PER_YIELD
                await asyncio.sleep(0)

    async def _handle_control(self, frame: aiohttp.WSMessage) -> bool:
        """Answer a ping; False for a frame that ends the connection."""
        if frame.type not in (aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG):
            return False
        self._control_at = self._loop.time()
        if frame.type is aiohttp.WSMsgType.PING:
            await self._socket.pong(frame.data)
        return True

    def _dispatch(self, packet: Packet) -> None:
        if packet.type is PacketType.ACK and packet.ack_id is not None:
            request = self._requests.get(packet.ack_id)
            if request is not None:
                request.resolve(packet.body)
        elif packet.type is PacketType.CONNECT_ERROR:
            if packet.namespace in self._pending_joins:
                self._pending_joins[packet.namespace].fail(_parse_connect_error(packet.body))
        elif packet.type is PacketType.DISCONNECT:
            self._on_packet(self, packet)

    def _check_silence(self, timeout: asyncio.Timeout) -> None:
        """Expire `timeout` if the server was silent for too long; otherwise check again later."""
        limit = self._silence_seconds if self._is_pinged else self._silence_seconds / 2
        silent_at = min(self._heard_at + limit, self._received_at + self._timeout_seconds)
        left = silent_at - self._loop.time()
        if left <= 0:
            timeout.reschedule(self._loop.time())
        else:
            self._silence_timer = self._loop.call_later(left, self._check_silence, timeout)

    # --- ending

    def _end(self, reason: FloorcastError) -> None:
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        if self.close_reason is not None:
            return
        self.close_reason = reason
        for request in (*self._requests.values(), *self._pending_joins.values()):
            request.fail(ConnectionLost(reason.message))
        self._on_end()

    async def close(self) -> None:
        """Close the WebSocket; waits a limited time for the server's closing handshake."""
        self._read_task.cancel()
        await asyncio.wait([self._read_task])
        await _close_socket(self._socket, self._config.close_seconds)


def _silence_seconds(timeout_seconds: float, config: ClientConfig) -> float:
    """The longest silence, pings answered: only so many may be sent between two of the server."""
    return max(config.silence_seconds, timeout_seconds / _MAX_PINGS)


async def _close_socket(socket: aiohttp.ClientWebSocketResponse, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await socket.close()


def _connect_error(url: str, error: Exception) -> FloorcastError:
    """The error of a failed connection attempt: an address that cannot be right says so."""
    if isinstance(error, FloorcastError):
        return error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return ConfigError(
            f"the certificate of {url} is not trusted: {error}; pass an ssl.SSLContext as `ssl`"
        )
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        return ConfigError(f"the server at {url} does not speak TLS: use http:// ({error})")
    if isinstance(error, aiohttp.WSServerHandshakeError) and error.status in _NO_SERVER_STATUSES:
        return ConfigError(
            f"no Floorcast server at {url}: it answered HTTP {error.status}. The address must be"
            " that of the server, with the path that it is mounted at, if any"
        )
    return ServerUnavailable(f"connection failed: {error}")


def _parse_connect_error(body: str) -> FloorcastError:
    try:
        refusal = ConnectError.model_validate_json(body)
    except ValidationError:
        return ProtocolError("malformed CONNECT_ERROR packet")
    if refusal.data is None:
        return ProtocolError(f"the server refused the namespace: {refusal.message}")
    return error_from_body(refusal.data)
