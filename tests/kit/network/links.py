"""Provides a link without a socket that records writes and can stop reading."""

import json
from collections.abc import Callable
from typing import Any

from server.core.errors import FloorcastError
from server.core.wire.frames import split_text_frames


class RecordingLink:
    """Implements `Link`; reads everything at once until `stall` is called."""

    def __init__(self, *, clog_bytes: int = 64 * 1024) -> None:
        self.deflates = False
        self.broken = False
        self.clogged = False
        self.written: list[bytes] = []
        self.held = b""
        self.ended: list[str] = []
        self.aborted: list[str] = []
        self.max_buffered_bytes = 0
        self.on_write: Callable[[], object] = lambda: None
        self.on_end: Callable[[], object] = lambda: None
        self.taken_bytes = 0
        self._clog_bytes = clog_bytes
        self._stalled = False
        self._unread: list[bytes] = []
        self._waiters: list[Callable[[], object]] = []

    @property
    def accepts_plain(self) -> bool:
        return not (self.clogged or self.deflates)

    @property
    def buffered_bytes(self) -> int:
        return sum(map(len, self._unread)) + len(self.held)

    @property
    def waiter_count(self) -> int:
        return len(self._waiters)

    def hold(self, frames: bytes) -> None:
        self.held += frames

    def release(self) -> None:
        self.write(b"")

    def write(self, frames: bytes) -> None:
        frames, self.held = self.held + frames, b""
        if self.aborted or self.ended or not frames:
            return
        if self.broken:
            raise OSError("broken pipe")
        self.on_write()
        self.written.append(frames)
        self._unread.append(frames)
        if not self._stalled:
            self.read()
            return
        self.max_buffered_bytes = max(self.max_buffered_bytes, self.buffered_bytes)
        if self.buffered_bytes > self._clog_bytes:
            self.clogged = True

    def when_writable(self, callback: Callable[[], object]) -> None:
        if self.clogged:
            self._waiters.append(callback)
        else:
            callback()

    def abort(self, reason: str) -> None:
        self.aborted.append(reason)
        self.on_end()

    def disconnect(
        self, error: FloorcastError, *, reconnect: bool, namespace: str | None = None
    ) -> None:
        self.ended.append(error.code.value)
        self.on_end()

    def reply(self) -> None:
        """Write what is held, as an ack does that follows it; a broken link ends."""
        if self.held and self.broken:
            self.held = b""
            self.abort("a write failed")
        else:
            self.release()

    # --- client actions

    def stall(self) -> None:
        """Stop reading."""
        self._stalled = True

    def read(self, max_bytes: int | None = None) -> None:
        """Read the buffered bytes, or at most `max_bytes` of them."""
        room = self.buffered_bytes if max_bytes is None else max_bytes
        while self._unread and room > 0:
            first = self._unread.pop(0)
            self.taken_bytes += min(room, len(first))
            if len(first) > room:
                self._unread.insert(0, first[room:])
            room -= len(first)
        if self.clogged and self.buffered_bytes <= self._clog_bytes // 4:
            self.clogged = False
            waiters, self._waiters = self._waiters, []
            for callback in waiters:
                callback()

    def resume(self) -> None:
        """Read the buffered bytes, and everything from now on."""
        self._stalled = False
        self.read()

    # --- recorded events

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """All events written, in order, as name and body."""
        return [(event, body) for event, body, _ in self.numbered_events()]

    def numbered_events(self, start: int = 0) -> list[tuple[str, dict[str, Any], str | None]]:
        """All events from a write on, each with its offset or None."""
        return [
            event_of(payload)
            for frames in self.written[start:]
            for payload in split_text_frames(frames)
        ]

    def messages(self, event: str | None = None) -> list[dict[str, Any]]:
        """The bodies of one event, or of all events."""
        return [body for name, body in self.events() if event in (None, name)]


def event_of(payload: bytes) -> tuple[str, dict[str, Any], str | None]:
    """Decode a packet into event, body, and offset or None."""
    name, body, *offset = json.loads(payload[payload.index(b"[") :])
    assert len(offset) <= 1
    return name, body, offset[0] if offset else None
