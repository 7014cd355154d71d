"""Delivers each published entry to every subscriber of this node, encoded once."""

from collections.abc import Collection

from server.core.counters import Counters
from server.core.log.backlog import Lag
from server.core.log.channel_state import ChannelState
from server.core.log.entries import Entry, Reset
from server.core.recovery.offsets import Offsets
from server.delivery.aging import BacklogAging
from server.delivery.channel import Channel, Derivation
from server.delivery.clients import Client
from server.delivery.conflation import ConflatedTiers
from server.delivery.context import DeliveryConfig, DeliveryContext, Schedule
from server.delivery.flusher import Flusher
from server.delivery.pushes import Pushes
from server.delivery.recovery import ClientRecovery, ExportedClient, ExportedSubscription
from server.delivery.registry import ClientRegistry
from server.delivery.slow_consumers import SlowConsumers
from server.delivery.subscriptions import ClientSubscriptions
from server.ports import Clock, Link


class Hub:
    """The clients and channels of this node.

    Entries of one turn of the loop go out as one write per client. Clients with the same interval
    and position share the encoded bytes. Nothing is queued for a slow consumer: only its lag in
    each channel is kept, and when it reads again it catches up from there.
    """

    def __init__(
        self,
        config: DeliveryConfig,
        *,
        clock: Clock,
        counters: Counters,
        schedule: Schedule,
        offsets: Offsets | None = None,
    ) -> None:
        context = DeliveryContext.create(config, clock, counters, schedule, offsets)
        self._context = context
        self.traffic = context.traffic
        self._live_again: dict[str, None] = {}
        self._channels: dict[str, Channel] = {}
        # What is received for channels whose state is being fetched.
        self._opening: dict[str, list[Entry | Reset]] = {}
        self.slow_consumers = slow = SlowConsumers(context, self._catch_up, self._update_tiers)
        self._registry = registry = ClientRegistry(context, self._channels, slow)
        self._flusher = flusher = Flusher(context, slow)
        self._conflated_tiers = tiers = ConflatedTiers(context, slow)
        self._subscriptions = ClientSubscriptions(context, registry, flusher, tiers, slow)
        self._pushes = Pushes(context, registry, flusher, tiers, slow)
        self._aging = BacklogAging(context, self._channels)
        self._recovery = ClientRecovery(context, registry, self._subscriptions, self._pushes)

    # --- clients

    def attach(self, connection_id: str, link: Link, *, numbered: bool = False) -> None:
        """Register a connection; if `numbered`, its events carry offsets."""
        self._registry.attach(connection_id, link, numbered=numbered)

    def detach(self, connection_id: str) -> tuple[str, ...]:
        """Forget a connection; the channels it leaves without subscribers. No-op if unknown."""
        return self._registry.detach(connection_id)

    def __contains__(self, connection_id: object) -> bool:
        """Whether this connection is attached and not parked."""
        return connection_id in self._registry.clients

    @property
    def link_count(self) -> int:
        """The number of attached connections, without parked ones."""
        return len(self._registry.clients)

    def link_of(self, connection_id: str) -> Link | None:
        """The link of an attached connection; None if it is unknown or parked."""
        client = self._registry.clients.get(connection_id)
        return None if client is None else client.link

    def merged_and_dropped(self, connection_id: str) -> tuple[int, int]:
        """How many updates were merged, and signals dropped, because the client was behind."""
        client = self._registry.clients.get(connection_id)
        return (0, 0) if client is None else (client.merged, client.dropped)

    # --- recovery

    def park(self, connection_id: str) -> None:
        """Stop sending to a disconnected client, and keep its subscriptions for a resume."""
        self._registry.park(connection_id)

    def resume(
        self, connection_id: str, link: Link, offset: str | None, first_frames: bytes = b""
    ) -> bool:
        """Resume a parked client after `offset`: send `first_frames`, then what it missed.

        Returns False and changes nothing if what it missed is not known exactly.
        """
        self._flusher.flush()
        return self._recovery.resume(connection_id, link, offset, first_frames)

    def last_offset(self, connection_id: str) -> str:
        """The offset of the last write to a parked client; KeyError if unknown."""
        return self._recovery.last_offset(connection_id)

    def export(self, connection_id: str, offset: str | None) -> ExportedClient | None:
        """What another node needs to resume a parked client after `offset`; KeyError if unknown.

        Returns None if what it missed is not known exactly. The client stays: `detach` it.
        """
        self._flusher.flush()
        return self._recovery.export(connection_id, offset)

    def restore(
        self,
        connection_id: str,
        link: Link,
        foreign_offset: str | None,
        subscriptions: Collection[ExportedSubscription],
        pushes: Collection[bytes] = (),
    ) -> bool:
        """Park a client exported by another node, as if it had disconnected here.

        Returns False and changes nothing if this node has the connection, if a channel is not
        open here, or if a position is unknown here. It resumes after `foreign_offset` or None,
        and gets the pushes before the entries that it missed.
        """
        self._flusher.flush()
        return self._recovery.restore(connection_id, link, foreign_offset, subscriptions, pushes)

    # --- subscriptions

    def subscribe(self, connection_id: str, channel: Channel, interval_ms: int) -> int:
        """Subscribe a client from the head on; returns the granted interval."""
        client = self._registry.clients[connection_id]
        return self._subscriptions.subscribe(client, channel, interval_ms)

    def unsubscribe(self, connection_id: str, channel: Channel) -> None:
        """Unsubscribe an attached or parked client; no-op if it has gone or is not subscribed."""
        client = self._registry.find(connection_id)
        if client is not None and channel.name in client.subscriptions:
            self._subscriptions.unsubscribe(client, channel)

    def is_subscribed(self, connection_id: str, channel: Channel) -> bool:
        """Whether an attached client is subscribed."""
        return channel.name in self._registry.clients[connection_id].subscriptions

    def interval_and_seq(self, connection_id: str, channel: Channel) -> tuple[int, int]:
        """A client's interval in a channel, and the seq of the last entry sent to it."""
        subscription = self._registry.clients[connection_id].subscriptions[channel.name]
        return subscription.interval_ms, channel.seq_of(subscription)

    def mark_reply_sent(self, connection_id: str) -> None:
        """Record that the reply with the client's positions goes out now."""
        client = self._registry.clients.get(connection_id)
        if client is not None:
            client.reply_sent(self._context.offsets.last_serial)

    def schedule_snapshot(self, connection_id: str, channel: Channel) -> None:
        """Send a snapshot as a message, because the reply carried only the position."""
        subscription = self._registry.clients[connection_id].subscriptions[channel.name]
        is_stale = channel.stale_since_ms is not None
        lag = Lag(channel.state.position.seq, needs_snapshot=True, needs_status=is_stale)
        self._subscriptions.schedule(channel, subscription, lag)

    # --- channels

    @property
    def topic_count(self) -> int:
        """The number of open topics and sessions."""
        return len(self._channels)

    def channel(self, name: str) -> Channel | None:
        """An open channel; None if this node does not follow it."""
        return self._channels.get(name)

    def channels(self) -> tuple[Channel, ...]:
        """All open channels."""
        return tuple(self._channels.values())

    def prepare(self, name: str) -> None:
        """Hold the entries of a channel until `open` or `abandon`."""
        if name not in self._channels:
            self._opening.setdefault(name, [])

    def open(self, name: str, state: ChannelState) -> Channel:
        """Open a channel at `state`, and apply the entries held since `prepare`."""
        channel = self._channels[name] = Channel(name, state, self._context)
        for held in self._opening.pop(name, ()):
            if isinstance(held, Entry):
                channel.accept(held, channel.active_at)
            elif held.head != state.position:
                channel.take_batches(self._context.config.max_batch_bytes)
                channel.reset(held)
        channel.take_batches(self._context.config.max_batch_bytes)
        return channel

    def open_derived(
        self, name: str, state: ChannelState, source: Channel, derivation: Derivation
    ) -> Channel:
        """Open a channel whose entries are derived from those of an open one."""
        channel = self._channels[name] = Channel(name, state, self._context)
        channel.set_stale(source.stale_since_ms)
        source.add_derived(channel, derivation)
        return channel

    def settle(self, channel: Channel, source: Channel) -> None:
        """Bring a derived channel to the position of its source; call it before a client joins.

        Clients that are subscribed get an update without a change: after it all have one position.
        """
        entry = source.derived[channel].advance()
        if entry is not None:
            self._accept(channel, entry)

    def abandon(self, name: str) -> None:
        """Discard the entries held since `prepare`."""
        self._opening.pop(name, None)

    def close(self, name: str, source: Channel | None = None) -> bool:
        """Close a channel; False if it is needed. A derived one has a `source`."""
        channel = self._channels.get(name)
        if channel is not None:
            if channel.is_needed:
                return False
            if source is not None:
                source.remove_derived(channel)
            del self._channels[name]
            self._flusher.forget(channel)
            self._conflated_tiers.forget(channel)
        return True

    # --- entries

    @property
    def delivered(self) -> int:
        """Messages written, counted once per recipient."""
        return self.traffic.messages

    def deliver(self, entry: Entry) -> None:
        """Deliver an entry; call this in the order of the channel. No-op if it is not open."""
        channel = self._channels.get(entry.channel)
        if channel is None:
            self._hold(entry)
            return
        self._accept(channel, entry)
        if channel.derived:
            for derived, derivation in tuple(channel.derived.items()):
                change = derivation.derive(entry)
                if change is not None:
                    self._accept(derived, change)

    def _accept(self, channel: Channel, entry: Entry) -> None:
        now = self._flusher.begin_turn()
        if channel.stale_since_ms is not None:
            self.set_stale(channel, None)
        if channel.accept(entry, now):
            self._flusher.add(channel)
        if channel.conflated:
            self._conflated_tiers.add(channel)

    def has_pending(self) -> bool:
        """Whether entries of immediate tiers are yet to be written."""
        return self._flusher.has_pending

    def flush(self) -> None:
        """Write all pending entries of immediate tiers."""
        self._flusher.flush()

    def flush_channel(self, channel: Channel) -> None:
        """Write the pending entries of one channel; call this before its subscribers change."""
        self._flusher.flush_channel(channel)

    def tick(self) -> None:
        """Flush the conflated tiers that are due, check slow consumers, drop old entries."""
        self._conflated_tiers.tick()
        self.slow_consumers.tick()
        self._aging.tick()

    def reset(self, reset: Reset) -> None:
        """Restart a channel after lost entries or a new epoch, with all its subscribers."""
        channel = self._channels.get(reset.channel)
        if channel is None:
            self._hold(reset)
            return
        with self._context.deferred_close:
            self._subscriptions.reset(channel, reset)
            for derived, derivation in tuple(channel.derived.items()):
                self._subscriptions.reset(derived, derivation.restart(reset))

    # --- pushes

    def set_stale(self, channel: Channel, since_ms: int | None) -> None:
        """Mark a topic stale since then, or live if None, and send the status."""
        channel.set_stale(since_ms)
        if since_ms is None:
            self._live_again[channel.name] = None
        self._pushes.broadcast_status(channel)
        for derived in tuple(channel.derived):
            if (derived.stale_since_ms is None) != (since_ms is None):
                self.set_stale(derived, since_ms)

    def pop_live_again(self) -> tuple[str, ...]:
        """The topics that were stale and are live since the last call."""
        names, self._live_again = tuple(self._live_again), {}
        return names

    def broadcast(
        self, channel: Channel, event: bytes, *, excluded: frozenset[str] = frozenset()
    ) -> None:
        """Broadcast an event that must arrive: logged for a resume, sent even to full buffers."""
        self._pushes.broadcast(channel, event, excluded=excluded)

    def broadcast_transient(
        self, channel: Channel, event: bytes, *, excluded: frozenset[str] = frozenset()
    ) -> int:
        """Broadcast an event that is worthless later, to writable subscribers that are caught up.

        Returns how many were skipped. Pending entries are written first.
        """
        return self._pushes.broadcast_transient(channel, event, excluded=excluded)

    def send_to(self, connection_id: str, event: bytes) -> bool:
        """Send an event to one client; False if not sent now. A parked client gets it on resume."""
        return self._pushes.send_to(connection_id, event)

    def send_with_ack(self, connection_id: str, frame: bytes) -> bool:
        """Send a frame that asks for an acknowledgement, without logging it; False if not sent."""
        return self._pushes.send_with_ack(connection_id, frame)

    def _hold(self, received: Entry | Reset) -> None:
        held = self._opening.get(received.channel)
        if held is not None:
            held.append(received)

    # Serving a slow consumer may find that it is slow again: these two parts need each other.

    def _catch_up(self, client: Client, channel: Channel) -> bool:
        return self._subscriptions.catch_up(client, channel)

    def _update_tiers(self, client: Client) -> None:
        self._subscriptions.update_tiers(client)
