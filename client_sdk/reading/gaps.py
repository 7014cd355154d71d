"""Judges each message by its position: new, known already, or behind a gap. No I/O."""

from enum import Enum
from typing import Protocol

from client_sdk.contract import Position, Stream


class Placed(Protocol):
    """Anything that has a place in a history."""

    @property
    def epoch(self) -> str: ...

    @property
    def seq(self) -> int: ...

    @property
    def prev(self) -> int: ...

    @property
    def type(self) -> str: ...


class Chain(Enum):
    """What a message has to do with those before it."""

    # Each stands alone, and the newest for all before it.
    LATEST = "latest"
    # A change of what came before; a snapshot stands for all of it.
    CHANGES = "changes"
    # Every single one counts.
    KEPT = "kept"


class Verdict(Enum):
    """What to do with a message."""

    NEXT = "next"
    KNOWN = "known"
    GAP = "gap"


def chain_of(stream: Stream) -> Chain:
    """How the messages of a stream hang together."""
    if not stream.merges:
        return Chain.KEPT
    return Chain.LATEST if stream is Stream.PRICE else Chain.CHANGES


class Track:
    """How far one reader has come in one topic or session."""

    __slots__ = ("_chain", "epoch", "seq")

    def __init__(self, chain: Chain, position: Position | None = None) -> None:
        self._chain = chain
        # Without an epoch the reader has nothing, and can take only what stands alone.
        self.epoch = "" if position is None else position.epoch
        self.seq = 0 if position is None else position.seq

    @property
    def position(self) -> Position | None:
        """The last that the reader got; None before the first."""
        return Position(epoch=self.epoch, seq=self.seq) if self.epoch else None

    def judge(self, message: Placed) -> Verdict:
        """What a message is to this reader; does not move it."""
        seq = message.seq
        same = message.epoch == self.epoch
        if same and seq <= self.seq:
            return Verdict.KNOWN
        kind = message.type
        if kind == "heartbeat":
            return Verdict.GAP
        chain = self._chain
        if chain is Chain.LATEST or (chain is Chain.CHANGES and kind == "snapshot"):
            return Verdict.NEXT
        if not same:
            return Verdict.GAP
        if chain is Chain.CHANGES:
            # Quantities are absolute: what reaches back over known changes repeats them.
            return Verdict.NEXT if message.prev <= self.seq else Verdict.GAP
        return Verdict.NEXT if seq == self.seq + 1 else Verdict.GAP

    def move(self, epoch: str, seq: int) -> None:
        """The reader has everything up to here, or was told that it has not."""
        self.epoch, self.seq = epoch, seq

    def restart(self) -> None:
        """What the reader has is worth nothing: only a snapshot helps."""
        self.epoch, self.seq = "", 0
