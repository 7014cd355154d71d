"""Clients that do not take their bytes: left alone, brought up to date, slowed down, let go."""

from collections.abc import Callable

from client_sdk.contract import ErrorCode
from server.core.counters import Counters
from server.core.errors import LimitError
from server.core.log.backlog import Backlog, Lag
from server.core.recovery.offsets import Offsets
from server.core.recovery.push_log import LoggedPush
from server.delivery.channel import Channel
from server.delivery.clients import Client
from server.delivery.deferred_close import DeferredClose
from server.ports import Clock

_CHECK_SECONDS = 1.0
# Many may read again at once; after so long a turn the loop looks after everybody else first.
_MAX_TURN_SECONDS = 0.005

# Calls back after so many seconds; 0 is the end of this turn of the loop.
Schedule = Callable[[Callable[[], None], float], object]


class SlowConsumers:
    """The ladder: merge, widen the interval, a snapshot instead of a backlog, goodbye."""

    def __init__(
        self,
        *,
        clock: Clock,
        counters: Counters,
        schedule: Schedule,
        flush: Callable[[Channel], None],
        join_tier: Callable[[Client, Channel, int, Lag], None],
        offsets: Offsets,
        deferred_close: DeferredClose,
        max_batch_bytes: int,
        stalled_seconds: float,
    ) -> None:
        self._clock = clock
        self._counters = counters
        self._schedule = schedule
        self._flush = flush
        self._join_tier = join_tier
        self._offsets = offsets
        self._deferred_close = deferred_close
        self._max_batch_bytes = max_batch_bytes
        self._stalled_seconds = stalled_seconds
        self._slow: dict[Client, None] = {}
        self._widened: dict[Client, None] = {}
        # Who is going to be served, at the end of this turn or when it can be written to.
        self._waiting: dict[Client, None] = {}
        self._ready: dict[Client, None] = {}
        self._is_scheduled = False
        self._next_check = 0.0

    def __len__(self) -> int:
        return len(self._slow)

    def forget(self, client: Client) -> None:
        """It has ended."""
        self._slow.pop(client, None)
        self._widened.pop(client, None)
        self._waiting.pop(client, None)
        self._ready.pop(client, None)

    def add(self, client: Client) -> None:
        """Its way is full: it gets nothing more until it has read."""
        if client in self._slow:
            return
        self._slow[client] = None
        self._counters.add("delivery.fell_behind")
        outbox = _backlog_of(client)
        now = self._clock.monotonic()
        outbox.update_stall(now, client.link.taken_bytes)
        if outbox.record_overflow(now):
            self._counters.add("delivery.widened")
            self._widened[client] = None
        self._wait_writable(client)

    def add_lag(self, client: Client, channel: Channel, lag: Lag) -> None:
        """It stands here in this topic of its, and is to be brought up to date by itself."""
        _backlog_of(client).put(channel, lag)
        self.add(client)

    def schedule_catch_up(self, client: Client, channel: Channel, lag: Lag) -> None:
        """It is to get something in this topic that others do not, as soon as it can take it."""
        _backlog_of(client).put(channel, lag)
        if client not in self._waiting:
            self._waiting[client] = None
            self._schedule_client(client)

    def serve(self, client: Client) -> None:
        """Bring a client up to date, as far as it takes it; each topic in turn."""
        with self._deferred_close:
            self._serve(client)

    def _serve(self, client: Client) -> None:
        outbox = client.backlog
        if outbox is None:
            return
        self._waiting.pop(client, None)
        link = client.link
        while not link.clogged:
            channel = outbox.next_key()
            if channel is None:
                self._slow.pop(client, None)
                outbox.clear_stall()
                self._update_tiers(client)
                return
            self._flush(channel)
            lag = outbox.get(channel)
            assert lag is not None
            if not self.send_catch_up(client, channel, lag):
                return
            if lag.last_seq == channel.state.position.seq and lag.pushed_serial is None:
                outbox.drop(channel)
                pace = client.channels[channel]
                channel.leave(client, pace)
                self._join_tier(client, channel, pace, lag)
        # Full again, though not anew: it only has more to read than fits at once.
        self._slow[client] = None
        outbox.update_stall(self._clock.monotonic(), link.taken_bytes)
        self._wait_writable(client)

    def send_catch_up(self, client: Client, channel: Channel, lag: Lag) -> bool:
        """Send what a client lacks in one topic, or a part of it; False where it is broken."""
        until = None
        if lag.pushed_serial is not None:
            sayings = (
                []
                if channel.push_log is None
                else channel.push_log.after(lag.pushed_serial, client.id)
            )
            if sayings is None:
                self.disconnect(client)
                return False
            if not sayings:
                lag.pushed_serial = None
            elif sayings[0].seq <= lag.last_seq:
                return self._resend_pushes(client, channel, lag, sayings)
            else:
                until = sayings[0].seq
        now_ms = int(self._clock.time() * 1000)
        missed = channel.state.catch_up(lag, now_ms, self._max_batch_bytes, until_seq=until)
        if missed.is_lost:
            self.disconnect(client)
            return False
        if lag.needs_resync and not self._send_resync(client, channel):
            return False
        events = missed.events
        count = len(events)
        steps = 0 if missed.is_snapshot or channel.state.merges else count
        status = channel.status() if lag.needs_status else None
        if status is not None:
            events = [*events, status]
        lag.needs_snapshot = False
        if events:
            frames, serial = client.encode_events(events, self._offsets)
            if not client.send(frames):
                return False
            if count:
                base = lag.last_seq if steps else missed.reached
                client.add_checkpoint(channel, serial, base, steps=steps, lag=lag)
            lag.needs_status = False
            if status is not None:
                client.add_checkpoint(channel, serial + count, missed.reached, lag=lag)
        if missed.merged > 1:
            self._counters.add("delivery.merged", missed.merged - 1)
        if missed.is_snapshot:
            self._counters.add("delivery.snapshots")
        lag.last_seq = missed.reached
        lag.needs_resync = False
        return True

    def _send_resync(self, client: Client, channel: Channel) -> bool:
        """That what it has is not what the next message follows on."""
        event = channel.state.resync()
        # Not noted as seen: without what comes next it is worth nothing.
        return event is None or client.send(client.encode_events([event], self._offsets)[0])

    def _resend_pushes(
        self, client: Client, channel: Channel, lag: Lag, pushes: list[LoggedPush]
    ) -> bool:
        """What was said before the next message that it lacks."""
        for saying in pushes:
            if saying.seq > lag.last_seq:
                break
            frames, serial = client.encode_events([saying.event], self._offsets)
            if not client.send(frames):
                return False
            lag.pushed_serial = saying.serial
            client.add_checkpoint(channel, serial, lag.last_seq, lag=lag)
        return True

    def tick(self) -> None:
        """Let those go who take nothing for too long, and be quicker with who has kept up."""
        now = self._clock.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        with self._deferred_close:
            self._check(now)

    def _check(self, now: float) -> None:
        for client in tuple(self._slow):
            stalled = _backlog_of(client).update_stall(now, client.link.taken_bytes)
            if 0 < self._stalled_seconds <= stalled:
                self.disconnect(client)
        for client in tuple(self._widened):
            outbox = _backlog_of(client)
            if client not in self._slow and outbox.try_narrow(now):
                self._update_tiers(client)
                if not outbox.interval_ms:
                    del self._widened[client]

    def disconnect(self, client: Client, reason: str = "the client reads too slowly") -> None:
        """The end of the ladder: it may come back, and begin anew."""
        self._counters.add("delivery.overloaded")
        self._deferred_close.disconnect(
            client.link, LimitError(ErrorCode.SERVER_OVERLOADED, reason)
        )

    def _update_tiers(self, client: Client) -> None:
        """Put it into the tiers that its pace of now belongs to."""
        for channel, interval_ms in tuple(client.channels.items()):
            pace = client.interval_for(channel)
            if pace != interval_ms:
                self._flush(channel)
                self._join_tier(client, channel, pace, channel.leave(client, interval_ms))

    def _wait_writable(self, client: Client) -> None:
        if client in self._waiting:
            return
        self._waiting[client] = None
        # Served in a turn of its own: the transport is in the middle of its work when it calls.
        client.link.when_writable(lambda: self._schedule_client(client))

    def _schedule_client(self, client: Client) -> None:
        self._ready[client] = None
        self._schedule_ready()

    def _schedule_ready(self) -> None:
        if self._ready and not self._is_scheduled:
            self._is_scheduled = True
            self._schedule(self._serve_ready, 0.0)

    def _serve_ready(self) -> None:
        self._is_scheduled = False
        until = self._clock.monotonic() + _MAX_TURN_SECONDS
        try:
            for client in tuple(self._ready):
                if self._ready.pop(client, client) is None:
                    self.serve(client)
                    if self._clock.monotonic() >= until:
                        break
        finally:
            self._schedule_ready()


def _backlog_of(client: Client) -> Backlog[Channel]:
    if client.backlog is None:
        client.backlog = Backlog()
    return client.backlog
