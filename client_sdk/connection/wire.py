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
    PacketKind,
    acknowledgement,
    connect_packet,
    decode_packet,
    event_packet,
    leave_packet,
    opened,
)
from client_sdk.contract.replies import ConnectRefusal
from client_sdk.errors import (
    ConnectionLost,
    FloorcastError,
    ProtocolError,
    SendTimeout,
    ServerUnavailable,
)

# Sync, and called in the order of the wire: an answer counts before the event behind it.
OnPacket = Callable[["Wire", Packet], None]
TakenT = TypeVar("TakenT")

_PATH = "/socket.io/?EIO=4&transport=websocket"
# A server that means well sends less: its largest answers are histories.
_MAX_FRAME_BYTES = 64 * 1024 * 1024
# A loop that reads what is there already lets others run after so many messages.
_READS_A_TURN = 128


class _Question:
    """Something asked, and what is to be done with the answer the moment it comes."""

    __slots__ = ("asked_at", "future", "take")

    def __init__(self, take: Callable[[str], Any]) -> None:
        loop = asyncio.get_running_loop()
        self.take = take
        self.asked_at = loop.time()
        self.future: asyncio.Future[Any] = loop.create_future()

    def answer(self, body: str) -> None:
        if self.future.done():
            return
        try:
            self.future.set_result(self.take(body))
        except FloorcastError as error:
            self.future.set_exception(error)

    def fail(self, error: FloorcastError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def drop(self) -> None:
        """Nobody waits any more: an error that nobody took is no news."""
        if self.future.done() and not self.future.cancelled():
            self.future.exception()


class Wire:
    """Owns its socket and the task that reads it; `ended` is set when it is over."""

    def __init__(
        self,
        socket: aiohttp.ClientWebSocketResponse,
        patience_seconds: float,
        on_packet: OnPacket,
        config: ClientConfig,
    ) -> None:
        self._socket = socket
        self._patience_seconds = patience_seconds
        self._on_packet = on_packet
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count()
        self._questions: dict[int, _Question] = {}
        self._joins: dict[str, _Question] = {}
        self._heard_at = self._loop.time()
        self._watch: asyncio.TimerHandle | None = None
        self._on_end: Callable[[], None] = lambda: None
        self.ended: FloorcastError | None = None
        self._reader = asyncio.create_task(self._read(), name="floorcast-read")

    @staticmethod
    async def open(
        http: aiohttp.ClientSession, url: str, on_packet: OnPacket, config: ClientConfig
    ) -> "Wire":
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
            if packet.kind is not PacketKind.OPEN:
                raise ProtocolError("no handshake")
            return Wire(socket, opened(packet.body).patience_seconds, on_packet, config)
        except BaseException as error:
            if socket is not None:
                await _hang_up(socket, config.close_seconds)
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
        question = self._joins[namespace] = _Question(lambda body: None)
        try:
            await self._ask(connect_packet(namespace, auth), question)
        finally:
            del self._joins[namespace]

    def joining_seconds(self, namespace: str) -> float:
        """How long ago the wish to join was sent."""
        question = self._joins.get(namespace)
        return 0.0 if question is None else self._loop.time() - question.asked_at

    async def ask(
        self, namespace: str, event: str, body: str, take: Callable[[str], TakenT]
    ) -> TakenT:
        """Send an event; `take` gets the answer's JSON in the order of the wire."""
        number = next(self._numbers)
        question = self._questions[number] = _Question(take)
        try:
            await self._ask(event_packet(namespace, number, event, body), question)
            taken: TakenT = question.future.result()
        finally:
            self._questions.pop(number, None)
        return taken

    async def _ask(self, text: str, question: _Question) -> None:
        try:
            async with asyncio.timeout(self._config.answer_seconds):
                await self._send(text)
                await question.future
        except TimeoutError:
            raise SendTimeout(f"no answer within {self._config.answer_seconds:g} s") from None
        finally:
            question.drop()

    async def acknowledge(self, namespace: str, number: int) -> None:
        """Answer an event that asked for it."""
        async with asyncio.timeout(self._config.answer_seconds):
            await self._send(acknowledgement(namespace, number))

    async def leave(self, namespace: str) -> None:
        """End a namespace on purpose: nobody waits for us there."""
        async with asyncio.timeout(self._config.close_seconds):
            await self._send(leave_packet(namespace))

    async def _send(self, text: str) -> None:
        if self.ended is not None:
            raise self.ended.again()
        try:
            await self._socket.send_str(text)
        except (aiohttp.ClientError, ConnectionError) as error:
            lost = ConnectionLost("the connection ended")
            self._end(lost)
            raise lost from error

    # --- what comes

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call this once the connection is over."""
        self._on_end = callback

    async def _read(self) -> None:
        reason: FloorcastError = ConnectionLost("the connection ended")
        try:
            async with asyncio.timeout(None) as limit:
                self._look(limit)
                await self._receive()
        except TimeoutError:
            reason = ConnectionLost(f"nothing was heard for {self._patience_seconds:g} s")
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
            self._heard_at = now()
            packet = decode_packet(message.data)
            if packet.kind is PacketKind.EVENT:
                on_packet(self, packet)
                if packet.event == "welcome" and packet.namespace in self._joins:
                    self._joins[packet.namespace].answer("")
            elif packet.kind is PacketKind.PING:
                await self._send(PONG)
            elif packet.kind is PacketKind.CLOSE:
                return
            else:
                self._answer(packet)
            if number % _READS_A_TURN == 0:
                await asyncio.sleep(0)

    def _answer(self, packet: Packet) -> None:
        if packet.kind is PacketKind.ANSWER and packet.number is not None:
            question = self._questions.get(packet.number)
            if question is not None:
                question.answer(packet.body)
        elif packet.kind is PacketKind.REFUSED:
            if packet.namespace in self._joins:
                self._joins[packet.namespace].fail(_refusal(packet.body))
        elif packet.kind is PacketKind.LEFT:
            self._on_packet(self, packet)

    def _look(self, limit: asyncio.Timeout) -> None:
        """End the reading when the server has been silent for too long."""
        left = self._heard_at + self._patience_seconds - self._loop.time()
        if left <= 0:
            limit.reschedule(self._loop.time())
        else:
            self._watch = self._loop.call_later(left, self._look, limit)

    # --- its end

    def _end(self, reason: FloorcastError) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if self.ended is not None:
            return
        self.ended = reason
        for question in (*self._questions.values(), *self._joins.values()):
            question.fail(ConnectionLost(reason.message))
        self._on_end()

    async def close(self) -> None:
        """Hang up; a server that does not answer is not waited for."""
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await _hang_up(self._socket, self._config.close_seconds)


async def _hang_up(socket: aiohttp.ClientWebSocketResponse, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await socket.close()


def _refusal(body: str) -> FloorcastError:
    try:
        return ConnectRefusal.model_validate_json(body).refusal()
    except ValidationError:
        return ProtocolError("a refusal of no shape")
