"""Tracks a reader's position: is a message new, known already, or behind a gap? No I/O."""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from client_sdk.contract import Position, Stream


class GapReason(StrEnum):
    """Why messages are missing."""

    # They are no longer in the server's history, or too many for one reply.
    HISTORY = "history"
    # The server lost its past and started a new epoch.
    EPOCH = "epoch"


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages that this reader will never get, in their position in the stream.

    `missed_to` is None if the number of messages in the lost epoch is unknown.
    """

    topic: str
    epoch: str
    missed_from: int
    missed_to: int | None
    reason: GapReason


class Positioned(Protocol):
    """A message with a position in a history."""

    @property
    def epoch(self) -> str: ...

    @property
    def seq(self) -> int: ...

    @property
    def prev(self) -> int: ...

    @property
    def type(self) -> str: ...


class Continuity(Enum):
    """How a message depends on the ones before it."""

    # The newest message replaces all before it.
    LATEST = "latest"
    # A message changes what came before; a snapshot replaces all before it.
    DELTAS = "deltas"
    # Every message counts.
    COMPLETE = "complete"


class CheckResult(Enum):
    """What a message is to a reader."""

    NEXT = "next"
    KNOWN = "known"
    GAP = "gap"


def continuity_of(stream: Stream, *, is_view: bool = False) -> Continuity:
    """The continuity of the messages of a stream, or of a view of it."""
    if is_view:
        return Continuity.DELTAS
    if not stream.is_conflated:
        return Continuity.COMPLETE
    return Continuity.LATEST if stream is Stream.PRICE else Continuity.DELTAS


class GapTracker:
    """The position of one reader in one topic or session."""

    __slots__ = ("_continuity", "epoch", "seq")

    def __init__(self, continuity: Continuity, position: Position | None = None) -> None:
        self._continuity = continuity
        # Without an epoch the reader has nothing, and accepts only self-contained messages.
        self.epoch = "" if position is None else position.epoch
        self.seq = 0 if position is None else position.seq

    @property
    def position(self) -> Position | None:
        """The position of the last message; None before the first."""
        return Position(epoch=self.epoch, seq=self.seq) if self.epoch else None

    def check(self, message: Positioned) -> CheckResult:
        """Compare a message with the position, which stays as it is."""
        seq = message.seq
        same_epoch = message.epoch == self.epoch
        if same_epoch and seq <= self.seq:
            return CheckResult.KNOWN
        message_type = message.type
        if message_type == "heartbeat":
            return CheckResult.GAP
        continuity = self._continuity
        if continuity is Continuity.LATEST or (
            continuity is Continuity.DELTAS and message_type == "snapshot"
        ):
            return CheckResult.NEXT
        if not same_epoch:
            return CheckResult.GAP
        if continuity is Continuity.DELTAS:
            # Quantities are absolute, so applying a known change again does no harm.
            return CheckResult.NEXT if message.prev <= self.seq else CheckResult.GAP
        return CheckResult.NEXT if seq == self.seq + 1 else CheckResult.GAP

    def advance(self, epoch: str, seq: int) -> None:
        """Set the position: the reader has everything up to it, or got a `Gap`."""
        self.epoch, self.seq = epoch, seq

    def reset(self) -> None:
        """Forget the position: the reader needs a snapshot."""
        self.epoch, self.seq = "", 0
