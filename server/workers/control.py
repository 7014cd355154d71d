"""The control protocol between supervisor and worker: JSON lines on a socket pair."""

import asyncio
import dataclasses
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

# A report has a few hundred series.
_MAX_LINE_BYTES = 8 * 1024 * 1024


class MessageKind(Enum):
    """The kind of a message after the worker spec.

    A worker of a newer release may serve an older supervisor, so it sends only what was asked for.
    """

    FEED = "feed"
    """To the worker: run the feed."""
    PING = "ping"
    """To the worker: answer at once."""
    READ = "read"
    """To the worker: send a report."""
    READY = "ready"
    """To the supervisor: the worker serves clients; `answers` if it knows PING and READ."""
    PONG = "pong"
    """To the supervisor: the answer to a PING."""
    REPORT = "report"
    """To the supervisor: the metrics, and why the worker is not ready."""
    FAILED = "failed"
    """To the supervisor: the worker cannot start; with `message` and exit `code`."""
    HANDED_OVER = "handed over"
    """To the supervisor: the worker has closed its listener and stopped its feed."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The start parameters of a worker.

    A worker loads the settings itself, so that a renewed one reads the current file.
    """

    number: int
    flags: Mapping[str, object]
    config: Path | None = None
    console_token: str | None = None


class Control:
    """One end of the control socket; the worker hands over when the other end closes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def open(sock: socket.socket) -> "Control":
        """Open the control protocol on a connected socket."""
        return Control(*await asyncio.open_unix_connection(sock=sock, limit=_MAX_LINE_BYTES))

    def send_spec(self, spec: WorkerSpec) -> None:
        """Send the start parameters, as the first line."""
        config = None if spec.config is None else str(spec.config)
        # Not an argument or a variable: it contains secrets that other processes could read.
        self._write({**dataclasses.asdict(spec), "config": config})

    async def receive_spec(self) -> WorkerSpec:
        """Receive the start parameters."""
        body = json.loads(await self._reader.readline())
        config = body.pop("config")
        return WorkerSpec(config=None if config is None else Path(config), **body)

    def send(self, kind: MessageKind, **fields: object) -> None:
        """Send a message; a no-op if the other end has closed."""
        self._write({"word": kind.value, **fields})

    async def receive(self) -> tuple[MessageKind, Mapping[str, Any]] | None:
        """Receive the next message, or None if the other end has closed."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        body = json.loads(line)
        return MessageKind(body.pop("word")), body

    def write_eof(self) -> None:
        """Close the sending direction, which asks the worker to hand over."""
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def _write(self, body: Mapping[str, object]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(body).encode() + b"\n")
