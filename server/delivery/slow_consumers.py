"""Handles slow consumers: merges, widens their interval, sends snapshots, disconnects."""

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
# Many clients may become writable at once; after this long the loop serves other work first.
_MAX_TURN_SECONDS = 0.005

# Calls back after that many seconds; 0 is the end of this turn of the loop.
Schedule = Callable[[Callable[[], None], float], object]


class SlowConsumers:
    """The clients that do not read fast enough, and those waiting to catch up."""

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
        # Clients to serve when they are writable; the ready ones at the end of this turn.
        self._waiting: dict[Client, None] = {}
        self._ready: dict[Client, None] = {}
        self._is_scheduled = False
        self._next_check = 0.0

    def __len__(self) -> int:
        return len(self._slow)

    def forget(self, client: Client) -> None:
        """Drop a client that has gone."""
        self._slow.pop(client, None)
        self._widened.pop(client, None)
        self._waiting.pop(client, None)
        self._ready.pop(client, None)

    def add(self, client: Client) -> None:
        """Add a client whose link is clogged; it gets nothing more until it has read."""
        if client in self._slow:
            return
        self._slow[client] = None
        self._counters.add("delivery.fell_behind")
        backlog = _backlog_of(client)
        now = self._clock.monotonic()
        backlog.update_stall(now, client.link.taken_bytes)
        if backlog.record_overflow(now):
            self._counters.add("delivery.widened")
            self._widened[client] = None
        self._wait_writable(client)

    def add_lag(self, client: Client, channel: Channel, lag: Lag) -> None:
        """Record a clogged client's lag in one channel; it catches up when writable."""
        _backlog_of(client).put(channel, lag)
        self.add(client)

    def schedule_catch_up(self, client: Client, channel: Channel, lag: Lag) -> None:
        """Send a client what it lacks in one channel at the end of this turn."""
        _backlog_of(client).put(channel, lag)
        if client not in self._waiting:
            self._waiting[client] = None
            self._schedule_client(client)

    def serve(self, client: Client) -> None:
        """Send a client what it lacks until its link is clogged; channels take turns."""
        with self._deferred_close:
            self._serve(client)

    def _serve(self, client: Client) -> None:
        backlog = client.backlog
        if backlog is None:
            return
        self._waiting.pop(client, None)
        link = client.link
        while not link.clogged:
            channel = backlog.next_key()
            if channel is None:
                self._slow.pop(client, None)
                backlog.clear_stall()
                self._update_tiers(client)
                return
            self._flush(channel)
            lag = backlog.get(channel)
            assert lag is not None
            if not self.send_catch_up(client, channel, lag):
                return
            if lag.last_seq == channel.state.position.seq and lag.pushed_serial is None:
                backlog.drop(channel)
                interval_ms = client.channels[channel]
                channel.leave(client, interval_ms)
                self._join_tier(client, channel, interval_ms, lag)
        # Clogged by the catch-up itself: not counted as falling behind again.
        self._slow[client] = None
        backlog.update_stall(self._clock.monotonic(), link.taken_bytes)
        self._wait_writable(client)

    def send_catch_up(self, client: Client, channel: Channel, lag: Lag) -> bool:
        """Send what a client lacks in one channel, or part of it; False if it is being closed."""
        until_seq = None
        if lag.pushed_serial is not None:
            pushes = (
                []
                if channel.push_log is None
                else channel.push_log.after(lag.pushed_serial, client.id)
            )
            if pushes is None:
                self.disconnect(client)
                return False
            if not pushes:
                lag.pushed_serial = None
            elif pushes[0].seq <= lag.last_seq:
                return self._resend_pushes(client, channel, lag, pushes)
            else:
                until_seq = pushes[0].seq
        now_ms = int(self._clock.time() * 1000)
        caught_up = channel.state.catch_up(lag, now_ms, self._max_batch_bytes, until_seq=until_seq)
        if caught_up.is_lost:
            self.disconnect(client)
            return False
        if lag.needs_resync and not self._send_resync(client, channel):
            return False
        events = caught_up.events
        count = len(events)
        steps = 0 if caught_up.is_snapshot or channel.state.merges else count
        status = channel.status() if lag.needs_status else None
        if status is not None:
            events = [*events, status]
        lag.needs_snapshot = False
        if events:
            frames, serial = client.encode_events(events, self._offsets)
            if not client.send(frames):
                return False
            if count:
                base = lag.last_seq if steps else caught_up.reached
                client.add_checkpoint(channel, serial, base, steps=steps, lag=lag)
            lag.needs_status = False
            if status is not None:
                client.add_checkpoint(channel, serial + count, caught_up.reached, lag=lag)
        if caught_up.merged > 1:
            self._counters.add("delivery.merged", caught_up.merged - 1)
        if caught_up.is_snapshot:
            self._counters.add("delivery.snapshots")
        lag.last_seq = caught_up.reached
        lag.needs_resync = False
        return True

    def _send_resync(self, client: Client, channel: Channel) -> bool:
        """Tell a client that the next message does not follow the last one it has."""
        event = channel.state.resync()
        # No checkpoint: without the message after it, the event is worthless.
        return event is None or client.send(client.encode_events([event], self._offsets)[0])

    def _resend_pushes(
        self, client: Client, channel: Channel, lag: Lag, pushes: list[LoggedPush]
    ) -> bool:
        """Resend the pushes that precede the next entry the client lacks."""
        for push in pushes:
            if push.seq > lag.last_seq:
                break
            frames, serial = client.encode_events([push.event], self._offsets)
            if not client.send(frames):
                return False
            lag.pushed_serial = push.serial
            client.add_checkpoint(channel, serial, lag.last_seq, lag=lag)
        return True

    def tick(self) -> None:
        """Disconnect stalled clients, and narrow the interval of those that keep up."""
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
            backlog = _backlog_of(client)
            if client not in self._slow and backlog.try_narrow(now):
                self._update_tiers(client)
                if not backlog.interval_ms:
                    del self._widened[client]

    def disconnect(self, client: Client, reason: str = "the client reads too slowly") -> None:
        """Disconnect a client with SERVER_OVERLOADED; it may reconnect."""
        self._counters.add("delivery.overloaded")
        self._deferred_close.disconnect(
            client.link, LimitError(ErrorCode.SERVER_OVERLOADED, reason)
        )

    def _update_tiers(self, client: Client) -> None:
        """Change a client's tiers after its interval was widened or narrowed."""
        for channel, interval_ms in tuple(client.channels.items()):
            granted_ms = client.interval_for(channel)
            if granted_ms != interval_ms:
                self._flush(channel)
                self._join_tier(client, channel, granted_ms, channel.leave(client, interval_ms))

    def _wait_writable(self, client: Client) -> None:
        if client in self._waiting:
            return
        self._waiting[client] = None
        # Served in a later callback: the transport calls in the middle of its own work.
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
        deadline = self._clock.monotonic() + _MAX_TURN_SECONDS
        try:
            for client in tuple(self._ready):
                if self._ready.pop(client, client) is None:
                    self.serve(client)
                    if self._clock.monotonic() >= deadline:
                        break
        finally:
            self._schedule_ready()


def _backlog_of(client: Client) -> Backlog[Channel]:
    if client.backlog is None:
        client.backlog = Backlog()
    return client.backlog
