"""Represents the connections of this node in the delivery layer, and their subscriptions."""

from collections.abc import Callable

from server.core.errors import FloorcastError
from server.core.log.backlog import Lag
from server.core.recovery.checkpoints import (
    Checkpoint,
    Checkpoints,
    Pending,
    ReplyPosition,
    ResumeRange,
    SerialIndex,
)
from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import LoggedPush, PushLog
from server.core.wire.frames import deflate_text_frames
from server.delivery.deferred_close import DeferredClose
from server.delivery.sliced_writes import WRITE_ERRORS
from server.ports import Link

# Bounds of the pushes kept per client for a resume.
_MAX_PUSHES = 100
_MAX_PUSH_BYTES = 64 * 1024


class _GoneLink:
    """The link of every parked client, so that none keeps its lost connection in memory."""

    accepts_plain = True
    clogged = False
    deflates = False
    buffered_bytes = 0
    taken_bytes = 0

    def when_writable(self, callback: Callable[[], object]) -> None:
        callback()

    def write(self, frames: bytes) -> None:
        pass

    def hold(self, frames: bytes) -> None:
        pass

    def release(self) -> None:
        pass

    def abort(self, reason: str) -> None:
        pass

    def disconnect(
        self, error: FloorcastError, *, reconnect: bool, namespace: str | None = None
    ) -> None:
        pass


_GONE: Link = _GoneLink()


class Subscription:
    """One client's subscription to one channel; held by the client, and by its tier."""

    __slots__ = ("checkpoints", "client", "interval_ms", "lag", "requested_ms")

    def __init__(self, client: "Client", checkpoints: Checkpoints | None) -> None:
        self.client = client
        # Its position at each write; None if the client's events have no offsets.
        self.checkpoints = checkpoints
        # The interval that the client requested, and the one granted to it.
        self.requested_ms = self.interval_ms = 0
        # None while it is at its tier's position, and while its client is parked.
        self.lag: Lag | None = None

    def request(self, interval_ms: int) -> None:
        """Set the interval that the client requests."""
        self.requested_ms = interval_ms

    def grant(self, interval_ms: int) -> None:
        """Set the interval that the client is served at."""
        self.interval_ms = interval_ms

    def sync(self, serial: int, seq: int, index: SerialIndex | None) -> None:
        """Record that it is at its tier's position from this write on."""
        self.lag = None
        if self.checkpoints is not None:
            self.checkpoints.add(Checkpoint(serial, seq, shared_index=index))

    def fall_behind(self, serial: int, lag: Lag) -> None:
        """Record that it is at a position of its own from this write on."""
        self.lag = lag
        self.record(serial, lag.last_seq)

    def record(self, serial: int, seq: int, *, steps: int = 0) -> None:
        """Record its position, and what is pending, from this write on; no-op without offsets."""
        if self.checkpoints is None:
            return
        lag, pending = self.lag, None
        if lag is not None and lag.has_pending:
            pending = Pending(lag.pushed_serial, lag.needs_snapshot, lag.needs_status)
        self.checkpoints.add(Checkpoint(serial, seq, steps, pending=pending))

    def leave(self) -> Lag | None:
        """Forget the lag, because it leaves its tier; returns it."""
        lag, self.lag = self.lag, None
        return lag


class Client:
    """A client's link and its subscriptions, and what to resend if it resumes."""

    __slots__ = (
        "_awaiting_reply",
        "_deferred_close",
        "_push_log",
        "dropped",
        "id",
        "is_numbered",
        "link",
        "merged",
        "resume_range",
        "subscriptions",
    )

    def __init__(
        self,
        connection_id: str,
        link: Link,
        deferred_close: DeferredClose,
        resume_range: ResumeRange | None,
    ) -> None:
        self.id = connection_id
        self.link = link
        self._deferred_close = deferred_close
        # None if the client's events have no offsets: it cannot resume.
        self.resume_range = resume_range
        self.is_numbered = resume_range is not None
        # Updates merged and signals dropped while it was behind.
        self.merged = self.dropped = 0
        # By the name of the channel.
        self.subscriptions: dict[str, Subscription] = {}
        # Created on first use: the pushes sent to this client alone, and the subscriptions whose
        # position the next reply carries.
        self._push_log: PushLog | None = None
        self._awaiting_reply: dict[Subscription, None] | None = None

    def subscribe(self, name: str) -> Subscription:
        """Create the subscription to a channel; it is in no tier yet."""
        checkpoints = None if self.resume_range is None else Checkpoints(self.resume_range)
        subscription = self.subscriptions[name] = Subscription(self, checkpoints)
        return subscription

    def unsubscribe(self, name: str) -> None:
        """Remove the subscription to a channel, which must exist."""
        subscription = self.subscriptions.pop(name)
        checkpoints = subscription.checkpoints
        if checkpoints is not None:
            checkpoints.clear()
        if self._awaiting_reply is not None:
            self._awaiting_reply.pop(subscription, None)

    def await_reply(self, subscription: Subscription, serial: int, *, had_position: bool) -> None:
        """Record that the next reply carries a subscription's position; no-op without offsets."""
        if subscription.checkpoints is not None:
            subscription.checkpoints.restart(ReplyPosition(serial, had_position))
            if self._awaiting_reply is None:
                self._awaiting_reply = {}
            self._awaiting_reply[subscription] = None

    def reply_sent(self, serial: int) -> None:
        """Record that the reply goes out now, after this write."""
        for subscription in self._awaiting_reply or ():
            if subscription.checkpoints is not None:
                subscription.checkpoints.reply_sent(serial)
        self._awaiting_reply = None

    def park(self, serial: int) -> None:
        """Record the last write before the connection was lost."""
        self.link = _GONE
        if self.resume_range is not None:
            self.resume_range.end(serial)

    def resume(self, link: Link) -> None:
        """Continue on a new connection."""
        self.link = link

    def end(self) -> None:
        """Forget the subscriptions, which refer to the client."""
        self.subscriptions.clear()
        self._awaiting_reply = None

    def log_push(self, event: bytes, offsets: Offsets) -> int:
        """Keep a push for a resume; returns its serial."""
        if self._push_log is None:
            self._push_log = PushLog(max_count=_MAX_PUSHES, max_bytes=_MAX_PUSH_BYTES)
        serial = offsets.allocate()
        self._push_log.append(LoggedPush(serial, 0, event))
        return serial

    def missed_pushes(self, serial: int) -> list[LoggedPush] | None:
        """The pushes to this client alone after a write; None if some are gone."""
        return [] if self._push_log is None else self._push_log.after(serial, self.id)

    def take_pushes(self, serial: int) -> list[bytes]:
        """Remove and return the pushes after a write, to send them again."""
        return [] if self._push_log is None else self._push_log.pop_after(serial)

    def count_merged(self, count: int) -> None:
        """Count updates that it got as one, because it was behind."""
        self.merged += count

    def count_dropped(self) -> None:
        """Count a signal that it did not get, because it was behind."""
        self.dropped += 1

    def encode_events(self, events: list[bytes], offsets: Offsets) -> tuple[bytes, int]:
        """Encode events for this client alone; the frames and the serial of the first event."""
        if not self.is_numbered:
            return b"".join(map(plain_frame, events)), offsets.last_serial
        first = offsets.allocate(len(events))
        return b"".join(map(offsets.frame, events, range(first, offsets.last_serial + 1))), first

    def send(self, frames: bytes) -> bool:
        """Write to the client; on failure abort its connection and return False."""
        link = self.link
        try:
            link.write(deflate_text_frames(frames) if link.deflates else frames)
        except WRITE_ERRORS:
            self._deferred_close.abort(link)
            return False
        return True
