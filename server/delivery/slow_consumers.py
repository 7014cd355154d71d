"""Clients that do not take their bytes: left alone, brought up to date, slowed down, let go."""

from collections.abc import Callable

from client_sdk.contract import ErrorCode
from server.core.counters import Counters
from server.core.errors import LimitError
from server.core.log.backlog import Lag, Outbox
from server.core.recovery.offsets import Offsets
from server.core.recovery.push_log import Saying
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.deferred_close import Endings
from server.ports import Clock

_LOOK_SECONDS = 1.0
# Many may read again at once; after so long a turn the loop looks after everybody else first.
_TURN_SECONDS = 0.005

# Calls back after so many seconds; 0 is the end of this turn of the loop.
Schedule = Callable[[Callable[[], None], float], object]


class Laggards:
    """The ladder: merge, widen the interval, a snapshot instead of a backlog, goodbye."""

    def __init__(
        self,
        *,
        clock: Clock,
        counters: Counters,
        schedule: Schedule,
        flush: Callable[[Channel], None],
        place: Callable[[Client, Channel, int, Lag], None],
        offsets: Offsets,
        endings: Endings,
        piece_bytes: int,
        stalled_seconds: float,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._schedule = schedule
        self._flush = flush
        self._place = place
        self._offsets = offsets
        self._endings = endings
        self._piece_bytes = piece_bytes
        self._stalled_seconds = stalled_seconds
        self._lagging: dict[Client, None] = {}
        self._widened: dict[Client, None] = {}
        # Who is going to be served, at the end of this turn or when it can be written to.
        self._expected: dict[Client, None] = {}
        self._ready: dict[Client, None] = {}
        self._scheduled = False
        self._next_look = 0.0

    def __len__(self) -> int:
        return len(self._lagging)

    def forget(self, client: Client) -> None:
        """It has ended."""
        self._lagging.pop(client, None)
        self._widened.pop(client, None)
        self._expected.pop(client, None)
        self._ready.pop(client, None)

    def watch(self, client: Client) -> None:
        """Its way is full: it gets nothing more until it has read."""
        if client in self._lagging:
            return
        self._lagging[client] = None
        self._counters.add("delivery.fell_behind")
        outbox = _outbox(client)
        now = self._clock.monotonic()
        outbox.stall(now, client.link.taken_bytes)
        if outbox.fall(now):
            self._counters.add("delivery.widened")
            self._widened[client] = None
        self._wait(client)

    def fall(self, client: Client, channel: Channel, lag: Lag) -> None:
        """It stands here in this topic of its, and is to be brought up to date by itself."""
        _outbox(client).put(channel, lag)
        self.watch(client)

    def owe(self, client: Client, channel: Channel, lag: Lag) -> None:
        """It is to get something in this topic that others do not, as soon as it can take it."""
        _outbox(client).put(channel, lag)
        if client not in self._expected:
            self._expected[client] = None
            self._soon(client)

    def serve(self, client: Client) -> None:
        """Bring a client up to date, as far as it takes it; each topic in turn."""
        with self._endings:
            self._serve(client)

    def _serve(self, client: Client) -> None:
        outbox = client.outbox
        if outbox is None:
            return
        self._expected.pop(client, None)
        link = client.link
        while not link.clogged:
            channel = outbox.next()
            if channel is None:
                self._lagging.pop(client, None)
                outbox.flows()
                self._pace(client)
                return
            self._flush(channel)
            lag = outbox.get(channel)
            assert lag is not None
            if not self.send_missed(client, channel, lag):
                return
            if lag.last == channel.view.position.seq and lag.told is None:
                outbox.drop(channel)
                pace = client.channels[channel]
                channel.part(client, pace)
                self._place(client, channel, pace, lag)
        # Full again, though not anew: it only has more to read than fits at once.
        self._lagging[client] = None
        outbox.stall(self._clock.monotonic(), link.taken_bytes)
        self._wait(client)

    def send_missed(self, client: Client, channel: Channel, lag: Lag) -> bool:
        """Send what a client lacks in one topic, or a part of it; False where it is broken."""
        until = None
        if lag.told is not None:
            sayings = [] if channel.told is None else channel.told.after(lag.told, client.id)
            if sayings is None:
                self.let_go(client)
                return False
            if not sayings:
                lag.told = None
            elif sayings[0].seq <= lag.last:
                return self._say_again(client, channel, lag, sayings)
            else:
                until = sayings[0].seq
        now_ms = int(self._clock.time() * 1000)
        missed = channel.view.missed(lag, now_ms, self._piece_bytes, until=until)
        if missed.is_lost:
            self.let_go(client)
            return False
        if lag.needs_resync and not self._say_resync(client, channel):
            return False
        events = missed.events
        count = len(events)
        steps = 0 if missed.is_snapshot or channel.view.merges else count
        status = channel.status() if lag.needs_status else None
        if status is not None:
            events = [*events, status]
        lag.needs_snapshot = False
        if events:
            frames, serial = client.frames(events, self._offsets)
            if not client.send(frames):
                return False
            if count:
                base = lag.last if steps else missed.reached
                client.note(channel, serial, base, steps=steps, owes=lag)
            lag.needs_status = False
            if status is not None:
                client.note(channel, serial + count, missed.reached, owes=lag)
        if missed.merged > 1:
            self._counters.add("delivery.merged", missed.merged - 1)
        if missed.is_snapshot:
            self._counters.add("delivery.snapshots")
        lag.last = missed.reached
        lag.needs_resync = False
        return True

    def _say_resync(self, client: Client, channel: Channel) -> bool:
        """That what it has is not what the next message follows on."""
        event = channel.view.resync()
        # Not noted as seen: without what comes next it is worth nothing.
        return event is None or client.send(client.frames([event], self._offsets)[0])

    def _say_again(self, client: Client, channel: Channel, lag: Lag, sayings: list[Saying]) -> bool:
        """What was said before the next message that it lacks."""
        for saying in sayings:
            if saying.seq > lag.last:
                break
            frames, serial = client.frames([saying.event], self._offsets)
            if not client.send(frames):
                return False
            lag.told = saying.serial
            client.note(channel, serial, lag.last, owes=lag)
        return True

    def tick(self) -> None:
        """Let those go who take nothing for too long, and be quicker with who has kept up."""
        now = self._clock.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        with self._endings:
            self._look(now)

    def _look(self, now: float) -> None:
        for client in tuple(self._lagging):
            stalled = _outbox(client).stall(now, client.link.taken_bytes)
            if 0 < self._stalled_seconds <= stalled:
                self.let_go(client)
        for client in tuple(self._widened):
            outbox = _outbox(client)
            if client not in self._lagging and outbox.calm(now):
                self._pace(client)
                if not outbox.interval_ms:
                    del self._widened[client]

    def let_go(self, client: Client, reason: str = "the client reads too slowly") -> None:
        """The end of the ladder: it may come back, and begin anew."""
        self._counters.add("delivery.overloaded")
        self._endings.send_away(client.link, LimitError(ErrorCode.SERVER_OVERLOADED, reason))

    def _pace(self, client: Client) -> None:
        """Put it into the tiers that its pace of now belongs to."""
        for channel, interval_ms in tuple(client.channels.items()):
            pace = client.pace(channel)
            if pace != interval_ms:
                self._flush(channel)
                self._place(client, channel, pace, channel.part(client, interval_ms))

    def _wait(self, client: Client) -> None:
        if client in self._expected:
            return
        self._expected[client] = None
        # Served in a turn of its own: the transport is in the middle of its work when it calls.
        client.link.when_writable(lambda: self._soon(client))

    def _soon(self, client: Client) -> None:
        self._ready[client] = None
        self._schedule_ready()

    def _schedule_ready(self) -> None:
        if self._ready and not self._scheduled:
            self._scheduled = True
            self._schedule(self._serve_ready, 0.0)

    def _serve_ready(self) -> None:
        self._scheduled = False
        until = self._clock.monotonic() + _TURN_SECONDS
        try:
            for client in tuple(self._ready):
                if self._ready.pop(client, client) is None:
                    self.serve(client)
                    if self._clock.monotonic() >= until:
                        break
        finally:
            self._schedule_ready()


def _outbox(client: Client) -> Outbox[Channel]:
    if client.outbox is None:
        client.outbox = Outbox()
    return client.outbox
