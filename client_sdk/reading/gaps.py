"""Judges each message by its position: new, known already, or behind a gap. No I/O."""

from enum import Enum
from typing import Protocol

from client_sdk.contract import Position, Stream


class Positioned(Protocol):
    """Anything that has a place in a history."""

    @property
    def epoch(self) -> str: ...

    @property
    def seq(self) -> int: ...

    @property
    def prev(self) -> int: ...

    @property
    def type(self) -> str: ...


class Continuity(Enum):
    """What a message has to do with those before it."""

    # Each stands alone, and the newest for all before it.
    LATEST = "latest"
    # A change of what came before; a snapshot stands for all of it.
    DELTAS = "changes"
    # Every single one counts.
    COMPLETE = "kept"


class CheckResult(Enum):
    """What to do with a message."""

    NEXT = "next"
    KNOWN = "known"
    GAP = "gap"


def continuity_of(stream: Stream) -> Continuity:
    """How the messages of a stream hang together."""
    if not stream.is_conflated:
        return Continuity.COMPLETE
    return Continuity.LATEST if stream is Stream.PRICE else Continuity.DELTAS


class GapTracker:
    """How far one reader has come in one topic or session."""

    __slots__ = ("_continuity", "epoch", "seq")

    def __init__(self, continuity: Continuity, position: Position | None = None) -> None:
        self._continuity = continuity
        # Without an epoch the reader has nothing, and can take only what stands alone.
        self.epoch = "" if position is None else position.epoch
        self.seq = 0 if position is None else position.seq

    @property
    def position(self) -> Position | None:
        """The last that the reader got; None before the first."""
        return Position(epoch=self.epoch, seq=self.seq) if self.epoch else None

    def check(self, message: Positioned) -> CheckResult:
        """What a message is to this reader; does not move it."""
        seq = message.seq
        same = message.epoch == self.epoch
        if same and seq <= self.seq:
            return CheckResult.KNOWN
        kind = message.type
        if kind == "heartbeat":
            return CheckResult.GAP
        chain = self._continuity
        if chain is Continuity.LATEST or (chain is Continuity.DELTAS and kind == "snapshot"):
            return CheckResult.NEXT
        if not same:
            return CheckResult.GAP
        if chain is Continuity.DELTAS:
            # Quantities are absolute: what reaches back over known changes repeats them.
            return CheckResult.NEXT if message.prev <= self.seq else CheckResult.GAP
        return CheckResult.NEXT if seq == self.seq + 1 else CheckResult.GAP

    def advance(self, epoch: str, seq: int) -> None:
        """The reader has everything up to here, or was told that it has not."""
        self.epoch, self.seq = epoch, seq

    def reset(self) -> None:
        """What the reader has is worth nothing: only a snapshot helps."""
        self.epoch, self.seq = "", 0
