"""The subscribers of one topic on this node, in tiers by their pace."""

from collections.abc import Iterator
from typing import NamedTuple

from server.core.entries import Entry, Reset
from server.core.outbox import Lag
from server.delivery.clients import Client
from server.delivery.view import View
from server.ports import Link


class Tier:
    """Clients of one pace: nearly all stand at the same message, and share its bytes."""

    __slots__ = ("interval_ms", "last", "odd", "oldest_ms", "synced")

    def __init__(self, interval_ms: int, last: int) -> None:
        self.interval_ms = interval_ms
        # What every synced client has got, and when the first message came that none has.
        self.last = last
        self.oldest_ms: int | None = None
        self.synced: dict[Link, Client] = {}
        # Those who stand elsewhere: they just came, or did not take their bytes.
        self.odd: dict[Client, Lag] = {}

    def __len__(self) -> int:
        return len(self.synced) + len(self.odd)


class Piece(NamedTuple):
    """Updates of one turn for those who get every one, as one write."""

    frames: bytes
    before: int
    oldest_ms: int
    messages: int


class Channel:
    """One topic or session with its view, its tiers, and what waits for the end of this turn."""

    __slots__ = (
        "_before",
        "_bytes",
        "_frames",
        "_fresh",
        "_oldest_ms",
        "_pieces",
        "active_at",
        "immediate",
        "name",
        "paced",
        "stale_since_ms",
        "view",
    )

    def __init__(self, name: str, view: View, now: float) -> None:
        self.name = name
        self.view = view
        self.immediate = Tier(0, view.position.seq)
        self.paced: dict[int, Tier] = {}
        # When the feed was last heard; the moment of its last message, while it is silent.
        self.active_at = now
        self.stale_since_ms: int | None = None
        self._frames: list[bytes] = []
        self._bytes = 0
        self._before = 0
        self._oldest_ms = 0
        self._pieces: list[Piece] = []
        # Who lacks nothing yet, but stands beside its tier.
        self._fresh: dict[Client, Lag] = {}

    def __repr__(self) -> str:
        return f"<Channel {self.name} {len(self)}>"

    def __len__(self) -> int:
        return len(self.immediate) + sum(map(len, self.paced.values()))

    @property
    def fresh_count(self) -> int:
        """How many lack nothing yet, but stand beside their tier."""
        return len(self._fresh)

    def clients(self) -> list[Client]:
        """Everybody who listens, at this moment."""
        return [client for tier in self.tiers() for client in (*tier.synced.values(), *tier.odd)]

    def places(self) -> list[tuple[Client, int]]:
        """Everybody who listens, each with the last message that they have."""
        return [
            each
            for tier in self.tiers()
            for each in (
                *((client, tier.last) for client in tier.synced.values()),
                *((client, lag.last) for client, lag in tier.odd.items()),
            )
        ]

    def tiers(self) -> Iterator[Tier]:
        """All paces."""
        yield self.immediate
        yield from self.paced.values()

    def status(self) -> bytes:
        """Whether the feed speaks, as a frame."""
        return self.view.status(self.stale_since_ms)

    # --- what comes

    def accept(self, entry: Entry, max_piece_bytes: int) -> bool:
        """Take the next entry; whether anybody waits for it at the end of this turn."""
        if not self.view.accept(entry):
            return False
        ts_ms = entry.ts_ms
        if self._fresh:
            for lag in self._fresh.values():
                lag.oldest_ms = ts_ms
            self._fresh.clear()
        for tier in self.paced.values():
            if tier.oldest_ms is None:
                tier.oldest_ms = ts_ms
        immediate = self.immediate
        if not immediate.synced:
            immediate.last = entry.position.seq
            return False
        frame = self.view.frame(entry)
        if self._frames and self._bytes + len(frame) > max_piece_bytes:
            self._close_piece()
        if not self._frames:
            self._before, self._oldest_ms = entry.position.seq - 1, ts_ms
        self._frames.append(frame)
        self._bytes += len(frame)
        return True

    def reset(self, reset: Reset) -> None:
        """Begin anew there; nobody must be in a tier while the ground is moved."""
        self.view.reset(reset.head, reset.latest)
        for tier in self.tiers():
            tier.last, tier.oldest_ms = reset.head.seq, None

    def waiting_bytes(self) -> int:
        """How much waits for each client of the immediate tier."""
        return self._bytes + sum(len(piece.frames) for piece in self._pieces)

    def take(self) -> list[Piece]:
        """What waits for the immediate tier, which has it from now on."""
        if self._frames:
            self._close_piece()
        pieces, self._pieces = self._pieces, []
        self.immediate.last = self.view.position.seq
        return pieces

    def _close_piece(self) -> None:
        frames = self._frames
        joined = frames[0] if len(frames) == 1 else b"".join(frames)
        self._pieces.append(Piece(joined, self._before, self._oldest_ms, len(frames)))
        self._frames, self._bytes = [], 0

    # --- who listens

    def tier(self, interval_ms: int) -> Tier:
        """The clients of this pace."""
        if interval_ms == 0:
            return self.immediate
        tier = self.paced.get(interval_ms)
        if tier is None:
            tier = self.paced[interval_ms] = Tier(interval_ms, self.view.position.seq)
        return tier

    def join(self, client: Client, interval_ms: int, lag: Lag) -> bool:
        """Put a client into a tier; False where it does not stand where the tier stands."""
        tier = self.tier(interval_ms)
        if lag.last == tier.last and not lag.needs_snapshot and not lag.needs_status:
            tier.synced[client.link] = client
            return True
        tier.odd[client] = lag
        if lag.last == self.view.position.seq:
            # The next message is the first that it lacks.
            lag.oldest_ms = None
            self._fresh[client] = lag
        return False

    def part(self, client: Client, interval_ms: int) -> Lag:
        """Take a client out; how far it had come."""
        self._fresh.pop(client, None)
        tier = self.tier(interval_ms)
        lag = tier.odd.pop(client, None)
        if lag is None:
            # Not there either while its tier is being served, and a write of its own fails.
            tier.synced.pop(client.link, None)
            lag = Lag(tier.last, tier.oldest_ms)
        return lag
