"""Tracks slow consumers: when to serve them, at which interval, and when to disconnect them."""

from collections.abc import Callable

from client_sdk.contract import ErrorCode
from server.core.errors import LimitError
from server.core.log.backlog import Backlog
from server.delivery.channel import Channel
from server.delivery.clients import Client, Subscription
from server.delivery.context import DeliveryContext

_CHECK_SECONDS = 1.0
# Many clients may become writable at once; after this long the loop serves other work first.
_MAX_TURN_SECONDS = 0.005


class SlowConsumers:
    """The clients that do not read fast enough, and those waiting to catch up.

    `catch_up` sends a client what it lacks in one channel, until it calls `drop`; it returns False
    if the client is being closed. `update_tiers` is called when a client's interval has changed.
    """

    def __init__(
        self,
        context: DeliveryContext,
        catch_up: Callable[[Client, Channel], bool],
        update_tiers: Callable[[Client], None],
    ) -> None:
        self._clock = context.clock
        self._counters = context.counters
        self._schedule = context.schedule
        self._deferred_close = context.deferred_close
        self._stalled_seconds = context.config.stalled_seconds
        self._catch_up = catch_up
        self._update_tiers = update_tiers
        # Created on first use: most clients never fall behind.
        self._backlogs: dict[Client, Backlog[Channel]] = {}
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
        self._backlogs.pop(client, None)
        self._slow.pop(client, None)
        self._widened.pop(client, None)
        self._waiting.pop(client, None)
        self._ready.pop(client, None)

    def interval_ms(self, channel: Channel, subscription: Subscription) -> int:
        """The interval to serve a subscription at: as requested, or longer if it reads slowly."""
        requested_ms = subscription.requested_ms
        backlog = self._backlogs.get(subscription.client)
        if backlog is None or not channel.state.merges:
            return requested_ms
        return max(requested_ms, backlog.interval_ms)

    def add(self, client: Client, channel: Channel | None = None) -> None:
        """Add a client whose link is clogged; it gets nothing more until it has read.

        When it is writable, it is served in the channel; None if its tier catches it up.
        """
        backlog = self._backlog_of(client)
        if channel is not None:
            backlog.put(channel)
        if client in self._slow:
            return
        self._slow[client] = None
        self._counters.add("delivery.fell_behind")
        now = self._clock.monotonic()
        backlog.update_stall(now, client.link.taken_bytes)
        if backlog.record_overflow(now):
            self._counters.add("delivery.widened")
            self._widened[client] = None
        self._wait_writable(client)

    def schedule(self, client: Client, channel: Channel) -> None:
        """Serve a client in one channel at the end of this turn."""
        self._backlog_of(client).put(channel)
        if client not in self._waiting:
            self._waiting[client] = None
            self._schedule_client(client)

    def drop(self, client: Client, channel: Channel) -> None:
        """Remove a channel in which a client has caught up, or that it has left."""
        backlog = self._backlogs.get(client)
        if backlog is not None:
            backlog.drop(channel)

    def serve(self, client: Client) -> None:
        """Send a client what it lacks until its link is clogged; channels take turns."""
        backlog = self._backlogs.get(client)
        if backlog is None:
            return
        self._waiting.pop(client, None)
        with self._deferred_close:
            self._serve(client, backlog)

    def _serve(self, client: Client, backlog: Backlog[Channel]) -> None:
        while not client.link.clogged:
            channel = backlog.next_key()
            if channel is None:
                self._slow.pop(client, None)
                backlog.clear_stall()
                self._update_tiers(client)
                return
            if not self._catch_up(client, channel):
                return
        # Clogged by the catch-up itself: not counted as falling behind again.
        self._slow[client] = None
        backlog.update_stall(self._clock.monotonic(), client.link.taken_bytes)
        self._wait_writable(client)

    def tick(self) -> None:
        """Disconnect stalled clients, and narrow the interval of those that keep up."""
        now = self._clock.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK_SECONDS
        with self._deferred_close:
            for client in tuple(self._slow):
                stalled = self._backlogs[client].update_stall(now, client.link.taken_bytes)
                if 0 < self._stalled_seconds <= stalled:
                    self.disconnect(client)
            for client in tuple(self._widened):
                backlog = self._backlogs[client]
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

    def _backlog_of(self, client: Client) -> Backlog[Channel]:
        backlog = self._backlogs.get(client)
        if backlog is None:
            backlog = self._backlogs[client] = Backlog()
        return backlog

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
