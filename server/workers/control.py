"""What a supervisor and its worker say to each other: lines of JSON on a socket of their own."""

import asyncio
import dataclasses
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any


class MessageKind(Enum):
    """Everything that is said after the order."""

    FEED = "feed"
    """To the worker: you are the one that runs the feed."""
    READY = "ready"
    """To the supervisor: clients are served."""
    FAILED = "failed"
    """To the supervisor: this is why that will not happen."""
    HANDED_OVER = "handed over"
    """To the supervisor: nobody new is let in here, and no feed runs."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a worker is to do, in terms of what the supervisor itself was told.

    It reads the settings for itself, so that one started later has the file as it is then.
    """

    number: int
    flags: Mapping[str, object]
    config: Path | None = None
    console_token: str | None = None


class Control:
    """One end of the socket. When the other end closes, the worker is no longer wanted."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def open(sock: socket.socket) -> "Control":
        """Speak over this end."""
        return Control(*await asyncio.open_unix_connection(sock=sock))

    def send_spec(self, spec: WorkerSpec) -> None:
        """Say what is to be done; the first line of all."""
        config = None if spec.config is None else str(spec.config)
        # Never an argument or a variable: secrets stand in it, and others could read those.
        self._write({**dataclasses.asdict(spec), "config": config})

    async def receive_spec(self) -> WorkerSpec:
        """What is to be done."""
        body = json.loads(await self._reader.readline())
        config = body.pop("config")
        return WorkerSpec(config=None if config is None else Path(config), **body)

    def send(self, kind: MessageKind, **fields: object) -> None:
        """Say one thing; to an end that is gone it is nothing."""
        self._write({"word": kind.value, **fields})

    async def receive(self) -> tuple[MessageKind, Mapping[str, Any]] | None:
        """The next thing said, or None when the other end has closed."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        if not line.endswith(b"\n"):
            return None
        body = json.loads(line)
        return MessageKind(body.pop("word")), body

    def write_eof(self) -> None:
        """Tell the worker that it is no longer wanted; what it says still comes."""
        self._writer.write_eof()

    def close(self) -> None:
        self._writer.close()

    def _write(self, body: Mapping[str, object]) -> None:
        if not self._writer.is_closing():
            self._writer.write(json.dumps(body).encode() + b"\n")
