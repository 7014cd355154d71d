"""The subscribers of one topic on this node, in tiers by their pace."""

from collections.abc import Iterator
from typing import NamedTuple

from server.core.log.backlog import Lag
from server.core.log.entries import Entry, Reset
from server.core.recovery.checkpoints import Writes
from server.core.recovery.offsets import Offsets, plain_frame
from server.core.recovery.push_log import Told
from server.core.recovery.write_index import Rounds, Written
from server.delivery.clients import Client
from server.delivery.topic_state import View
from server.ports import Link

# An event's name, its fields and its offset, about.
_EVENT_BYTES = 160
# Older places of a merged topic are not worth their memory: a snapshot does as well.
_MAX_MERGED = 128
_MAX_ROUNDS = 64
_MAX_TOLD = 1000
_MAX_TOLD_BYTES = 256 * 1024

Group = dict[Link, Client]


class Tier:
    """Clients of one pace: nearly all stand at the same message, and share its bytes."""

    __slots__ = ("groups", "interval_ms", "last", "odd", "oldest_ms", "rounds")

    def __init__(self, interval_ms: int, last: int) -> None:
        self.interval_ms = interval_ms
        # What every synced client has got, and when the first message came that none has.
        self.last = last
        self.oldest_ms: int | None = None
        # The synced ones: those who want no offsets, and those who do.
        self.groups: tuple[Group, Group] = ({}, {})
        # Those who stand elsewhere: they just came, or did not take their bytes.
        self.odd: dict[Client, Lag] = {}
        self.rounds = Rounds(max_rounds=_MAX_ROUNDS)

    def __len__(self) -> int:
        return len(self.groups[0]) + len(self.groups[1]) + len(self.odd)

    def group(self, client: Client) -> Group:
        """Where a client is, or would be, when it is synced."""
        return self.groups[client.trail is not None]

    def synced(self) -> list[Client]:
        """Everybody who stands where the tier stands."""
        return [*self.groups[0].values(), *self.groups[1].values()]


class Piece(NamedTuple):
    """Updates of one turn for those who get every one, as one write; with and without offsets."""

    frames: tuple[bytes, bytes]
    serial: int
    before: int
    oldest_ms: int
    messages: int


class Channel:
    """One topic or session with its view, its tiers, and what waits for the end of this turn."""

    __slots__ = (
        "_bytes",
        "_fresh",
        "_offsets",
        "_reset_at",
        "_waiting",
        "active_at",
        "held",
        "immediate",
        "name",
        "paced",
        "reset_serial",
        "stale_since_ms",
        "status_serial",
        "told",
        "view",
        "written",
    )

    def __init__(
        self,
        name: str,
        view: View,
        now: float,
        *,
        offsets: Offsets,
        max_messages: int,
        recoverable: bool,
    ) -> None:
        self.name = name
        self.view = view
        self._offsets = offsets
        self.immediate = Tier(0, view.position.seq)
        self.paced: dict[int, Tier] = {}
        # Those who were cut off and may be back: what they miss is kept for them.
        self.held: dict[Client, None] = {}
        # When the feed was last heard; the moment of its last message, while it is silent.
        self.active_at = now
        self.stale_since_ms: int | None = None
        # The writes before which nobody knows the feed's state, or what led to where it is.
        self.status_serial = self.reset_serial = 0
        self.written: Written | None = None
        self.told: Told | None = None
        if recoverable:
            limit = min(max_messages, _MAX_MERGED) if view.merges else max_messages
            self.written = Written(view.position.seq, max_messages=limit)
            self.told = Told(max_count=_MAX_TOLD, max_bytes=_MAX_TOLD_BYTES)
        self._waiting: list[Entry] = []
        self._bytes = 0
        # Which of those that wait does not follow the one before it.
        self._reset_at: int | None = None
        # Who lacks nothing yet, but stands beside its tier.
        self._fresh: dict[Client, Lag] = {}

    def __repr__(self) -> str:
        return f"<Channel {self.name} {len(self)}>"

    def __len__(self) -> int:
        return len(self.immediate) + sum(map(len, self.paced.values()))

    @property
    def needed(self) -> bool:
        """Whether anybody listens, or may be back to do so."""
        return bool(len(self) or self.held)

    def held_ids(self) -> tuple[str, ...]:
        """The connections that were cut off and may be back."""
        return tuple(client.id for client in self.held)

    @property
    def fresh_count(self) -> int:
        """How many lack nothing yet, but stand beside their tier."""
        return len(self._fresh)

    def clients(self) -> list[Client]:
        """Everybody who listens, at this moment."""
        return [client for tier in self.tiers() for client in (*tier.synced(), *tier.odd)]

    def places(self) -> list[tuple[Client, int]]:
        """Everybody who listens, each with the last message that they have."""
        return [
            each
            for tier in self.tiers()
            for each in (
                *((client, tier.last) for client in tier.synced()),
                *((client, lag.last) for client, lag in tier.odd.items()),
            )
        ]

    def tiers(self) -> Iterator[Tier]:
        """All paces."""
        yield self.immediate
        yield from self.paced.values()

    def status(self) -> bytes | None:
        """Whether the feed speaks, as an event; None where there is none."""
        return self.view.status(self.stale_since_ms)

    # --- what comes

    def accept(self, entry: Entry) -> bool:
        """Take the next entry; whether anybody waits for it at the end of this turn."""
        before = self.view.position
        if not self.view.accept(entry):
            return False
        ts_ms = entry.ts_ms
        position = entry.position
        if position.epoch != before.epoch or position.seq != before.seq + 1:
            self._reset_at = len(self._waiting)
        if self._fresh:
            for lag in self._fresh.values():
                lag.oldest_ms = ts_ms
            self._fresh.clear()
        for tier in self.paced.values():
            if tier.oldest_ms is None:
                tier.oldest_ms = ts_ms
        plain, numbered = self.immediate.groups
        if not plain and not numbered and self.written is None:
            self.immediate.last = position.seq
            return False
        self._waiting.append(entry)
        self._bytes += len(entry.data) + _EVENT_BYTES
        return True

    def reset(self, reset: Reset) -> None:
        """Begin anew there; nobody must be in a tier while the ground is moved, and none waits."""
        assert not self._waiting
        self.view.reset(reset.head, reset.latest)
        if self.written is not None:
            self.written.begin_again(reset.head.seq)
        for tier in self.tiers():
            tier.last, tier.oldest_ms = reset.head.seq, None

    def waiting_bytes(self) -> int:
        """About how much waits for each client of the immediate tier."""
        return self._bytes

    def take(self, max_piece_bytes: int) -> list[Piece]:
        """What waits for the immediate tier, which has it from now on, numbered and encoded."""
        entries, self._waiting = self._waiting, []
        self._bytes = 0
        self.immediate.last = self.view.position.seq
        if not entries:
            return []
        serial = self._offsets.take(len(entries))
        if self.written is not None:
            self._number(self.written, serial, entries)
        plain, numbered = self.immediate.groups
        if not plain and not numbered:
            return []
        pieces = []
        for part in _parts(entries, max_piece_bytes):
            events = list(map(self.view.event, part))
            frames = (
                b"".join(map(plain_frame, events)) if plain else b"",
                b"".join(map(self._offsets.frame, events, range(serial, serial + len(events))))
                if numbered
                else b"",
            )
            first = part[0]
            pieces.append(Piece(frames, serial, first.position.seq - 1, first.ts_ms, len(part)))
            serial += len(part)
        return pieces

    def _number(self, written: Written, serial: int, entries: list[Entry]) -> None:
        if self._reset_at is not None:
            for number, entry in enumerate(entries[: self._reset_at], serial):
                written.append(number, entry.ts_ms)
            serial, entries = serial + self._reset_at, entries[self._reset_at :]
            written.begin_again(entries[0].position.seq - 1)
            self.reset_serial, self._reset_at = serial, None
        for number, entry in enumerate(entries, serial):
            written.append(number, entry.ts_ms)

    # --- who listens

    def tier(self, interval_ms: int) -> Tier:
        """The clients of this pace."""
        if interval_ms == 0:
            return self.immediate
        tier = self.paced.get(interval_ms)
        if tier is None:
            tier = self.paced[interval_ms] = Tier(interval_ms, self.view.position.seq)
        return tier

    def sync(self, tier: Tier, client: Client) -> None:
        """The client stands where its tier stands, and goes with it from now on."""
        tier.group(client)[client.link] = client
        if client.trail is not None:
            writes: Writes | None = tier.rounds if tier.interval_ms else self.written
            client.note(self, self._offsets.last, tier.last, follows=writes)

    def join(self, client: Client, interval_ms: int, lag: Lag) -> bool:
        """Put a client into a tier; False where it does not stand where the tier stands."""
        tier = self.tier(interval_ms)
        if lag.last == tier.last and not lag.owes:
            self.sync(tier, client)
            return True
        tier.odd[client] = lag
        client.note(self, self._offsets.last, lag.last, owes=lag)
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
            tier.group(client).pop(client.link, None)
            lag = Lag(tier.last, tier.oldest_ms)
        return lag


def _parts(entries: list[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    """The entries in runs that are one write each."""
    if len(entries) == 1:
        yield entries
        return
    part: list[Entry] = []
    room = max_bytes
    for entry in entries:
        room -= len(entry.data) + _EVENT_BYTES
        if part and room < 0:
            yield part
            part, room = [], max_bytes - len(entry.data) - _EVENT_BYTES
        part.append(entry)
    yield part
