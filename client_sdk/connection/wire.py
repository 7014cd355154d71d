"""One connection: a WebSocket that speaks Engine.IO and Socket.IO, from its opening to its end."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import aiohttp
from pydantic import ValidationError

from client_sdk.config import ClientConfig
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
from client_sdk.contract.replies import ConnectError
from client_sdk.errors import (
    ConnectionLost,
    FloorcastError,
    ProtocolError,
    SendTimeout,
    ServerUnavailable,
)

# Sync, and called in the order of the wire: an answer counts before the event behind it.
OnPacket = Callable[["Connection", Packet], None]
ResultT = TypeVar("ResultT")

_PATH = "/socket.io/?EIO=4&transport=websocket"
# A server that means well sends less: its largest answers are histories.
_MAX_FRAME_BYTES = 64 * 1024 * 1024
# A loop that reads what is there already lets others run after so many messages.
_FRAMES_PER_YIELD = 128


class _PendingRequest:
    """Something asked, and what is to be done with the answer the moment it comes."""

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
        """Nobody waits any more: an error that nobody took is no news."""
        if self.future.done() and not self.future.cancelled():
            self.future.exception()


class Connection:
    """Owns its socket and the task that reads it; `ended` is set when it is over."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        timeout_seconds: float,
        on_packet: OnPacket,
        config: ClientConfig,
    ) -> None:
        self._socket = socket
        self._timeout_seconds = timeout_seconds
        self._on_packet = on_packet
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._ack_ids = itertools.count()
        self._requests: dict[int, _PendingRequest] = {}
        self._pending_joins: dict[str, _PendingRequest] = {}
        self._received_at = self._loop.time()
        self._silence_timer: asyncio.TimerHandle | None = None
        self._on_end: Callable[[], None] = lambda: None
        self.close_reason: FloorcastError | None = None
        self._read_task = asyncio.create_task(self._read(), name="floorcast-read")

    @staticmethod
    async def open(
        http: aiohttp.ClientSession, url: str, on_packet: OnPacket, config: ClientConfig
    ) -> "Connection":
        """Connect and shake hands; raises `ServerUnavailable`."""
        socket = None
        try:
            async with asyncio.timeout(config.connect_seconds):
                socket = await http.ws_connect(
                    url + _PATH,
                    compress=0,
                    max_msg_size=_MAX_FRAME_BYTES,
                    timeout=aiohttp.ClientWSTimeout(ws_close=config.close_seconds),
                )
                handshake = await socket.receive()
            if handshake.type is not aiohttp.WSMsgType.TEXT:
                raise ServerUnavailable("the server hung up")
            packet = decode_packet(handshake.data)
            if packet.type is not PacketType.OPEN:
                raise ProtocolError("no handshake")
            return Connection(
                socket, parse_handshake(packet.body).timeout_seconds, on_packet, config
            )
        except BaseException as error:
            if socket is not None:
                await _close_socket(socket, config.close_seconds)
            if isinstance(error, TimeoutError):
                raise ServerUnavailable(
                    f"no connection within {config.connect_seconds:g} s"
                ) from None
            if isinstance(error, aiohttp.ClientError | OSError | ValueError):
                raise ServerUnavailable(f"no connection: {error}") from error
            raise

    # --- what is asked

    async def join(self, namespace: str, auth: Mapping[str, object]) -> None:
        """Come into a namespace; raises why not."""
        question = self._pending_joins[namespace] = _PendingRequest(lambda body: None)
        try:
            await self._send_request(connect_packet(namespace, auth), question)
        finally:
            del self._pending_joins[namespace]

    def join_elapsed_seconds(self, namespace: str) -> float:
        """How long ago the wish to join was sent."""
        question = self._pending_joins.get(namespace)
        return 0.0 if question is None else self._loop.time() - question.sent_at

    async def request(
        self, namespace: str, event: str, body: str, parse: Callable[[str], ResultT]
    ) -> ResultT:
        """Send an event; `take` gets the answer's JSON in the order of the wire."""
        number = next(self._ack_ids)
        question = self._requests[number] = _PendingRequest(parse)
        try:
            await self._send_request(event_packet(namespace, number, event, body), question)
            taken: ResultT = question.future.result()
        finally:
            self._requests.pop(number, None)
        return taken

    async def _send_request(self, text: str, question: _PendingRequest) -> None:
        try:
            async with asyncio.timeout(self._config.answer_seconds):
                await self._send(text)
                await question.future
        except TimeoutError:
            raise SendTimeout(f"no answer within {self._config.answer_seconds:g} s") from None
        finally:
            question.consume_error()

    async def acknowledge(self, namespace: str, number: int) -> None:
        """Answer an event that asked for it."""
        async with asyncio.timeout(self._config.answer_seconds):
            await self._send(ack_packet(namespace, number))

    async def leave(self, namespace: str) -> None:
        """End a namespace on purpose: nobody waits for us there."""
        async with asyncio.timeout(self._config.close_seconds):
            await self._send(disconnect_packet(namespace))

    async def _send(self, text: str) -> None:
        if self.close_reason is not None:
            raise self.close_reason.clone()
        try:
            await self._socket.send_str(text)
        except (aiohttp.ClientError, ConnectionError) as error:
            lost = ConnectionLost("the connection ended")
            self._end(lost)
            raise lost from error

    # --- what comes

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call this once the connection is over."""
        self._on_end = callback

    async def _read(self) -> None:
        reason: FloorcastError = ConnectionLost("the connection ended")
        try:
            async with asyncio.timeout(None) as limit:
                self._check_silence(limit)
                await self._receive()
        except TimeoutError:
            reason = ConnectionLost(f"nothing was heard for {self._timeout_seconds:g} s")
        except FloorcastError as error:
            reason = error
        finally:
            self._end(reason)

    async def _receive(self) -> None:
        receive, now, on_packet = self._socket.receive, self._loop.time, self._on_packet
        for number in itertools.count(1):
            message = await receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            self._received_at = now()
            packet = decode_packet(message.data)
            if packet.type is PacketType.EVENT:
                on_packet(self, packet)
                if packet.event == "welcome" and packet.namespace in self._pending_joins:
                    self._pending_joins[packet.namespace].resolve("")
            elif packet.type is PacketType.PING:
                await self._send(PONG)
            elif packet.type is PacketType.CLOSE:
                return
            else:
                self._dispatch(packet)
            if number % _FRAMES_PER_YIELD == 0:
                await asyncio.sleep(0)

    def _dispatch(self, packet: Packet) -> None:
        if packet.type is PacketType.ACK and packet.ack_id is not None:
            question = self._requests.get(packet.ack_id)
            if question is not None:
                question.resolve(packet.body)
        elif packet.type is PacketType.CONNECT_ERROR:
            if packet.namespace in self._pending_joins:
                self._pending_joins[packet.namespace].fail(_parse_connect_error(packet.body))
        elif packet.type is PacketType.DISCONNECT:
            self._on_packet(self, packet)

    def _check_silence(self, timeout: asyncio.Timeout) -> None:
        """End the reading when the server has been silent for too long."""
        left = self._received_at + self._timeout_seconds - self._loop.time()
        if left <= 0:
            timeout.reschedule(self._loop.time())
        else:
            self._silence_timer = self._loop.call_later(left, self._check_silence, timeout)

    # --- its end

    def _end(self, reason: FloorcastError) -> None:
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        if self.close_reason is not None:
            return
        self.close_reason = reason
        for question in (*self._requests.values(), *self._pending_joins.values()):
            question.fail(ConnectionLost(reason.message))
        self._on_end()

    async def close(self) -> None:
        """Hang up; a server that does not answer is not waited for."""
        self._read_task.cancel()
        await asyncio.wait([self._read_task])
        await _close_socket(self._socket, self._config.close_seconds)


async def _close_socket(socket: aiohttp.ClientWebSocketResponse, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await socket.close()


def _parse_connect_error(body: str) -> FloorcastError:
    try:
        return ConnectError.model_validate_json(body).to_error()
    except ValidationError:
        return ProtocolError("a refusal of no shape")
