"""Resumes parked clients, and moves them between nodes."""

from collections.abc import Collection
from dataclasses import dataclass

from server.core.log.backlog import Lag
from server.core.log.entries import Position
from server.delivery.channel import Channel
from server.delivery.clients import Subscription
from server.delivery.context import DeliveryContext
from server.delivery.pushes import Pushes
from server.delivery.registry import ClientRegistry
from server.delivery.resume_plan import plan_resume
from server.delivery.subscriptions import ClientSubscriptions
from server.ports import Link


@dataclass(frozen=True, slots=True)
class ExportedSubscription:
    """How far a parked client has come in one channel, and what else it must be sent there."""

    channel: str
    position: Position
    interval_ms: int
    needs_snapshot: bool = False
    # The feed status that the client was last sent; None if it must be sent it again.
    stale: bool | None = False


@dataclass(frozen=True, slots=True)
class ExportedClient:
    """A parked client's subscriptions, and the pushes that it missed, oldest first."""

    subscriptions: tuple[ExportedSubscription, ...]
    pushes: tuple[bytes, ...] = ()


class ClientRecovery:
    """Resumes, exports and restores parked clients; no entries may be pending."""

    def __init__(
        self,
        context: DeliveryContext,
        registry: ClientRegistry,
        subscriptions: ClientSubscriptions,
        pushes: Pushes,
    ) -> None:
        self._offsets = context.offsets
        self._deferred_close = context.deferred_close
        self._registry = registry
        self._subscriptions = subscriptions
        self._pushes = pushes

    def resume(
        self, connection_id: str, link: Link, offset: str | None, first_frames: bytes
    ) -> bool:
        """Resume a parked client after `offset`; False if what it missed is unknown."""
        client = self._registry.parked[connection_id]
        plan = plan_resume(client, offset, self._offsets, self._registry.channels)
        if plan is None:
            return False
        self._registry.resume(client, link)
        with self._deferred_close:
            client.send(first_frames)
            # Each push gets a new serial: after another disconnect it must not come twice.
            for event in client.take_pushes(plan.serial):
                self._pushes.send_to(connection_id, event)
            self._subscriptions.resume(client, plan.subscriptions)
        return True

    def last_offset(self, connection_id: str) -> str:
        """The offset of the last write to a parked client."""
        resume_range = self._registry.parked[connection_id].resume_range
        assert resume_range is not None
        return self._offsets.format(resume_range.last_serial)

    def export(self, connection_id: str, offset: str | None) -> ExportedClient | None:
        """What another node needs to resume a parked client; None if that is unknown."""
        client = self._registry.parked[connection_id]
        plan = plan_resume(client, offset, self._offsets, self._registry.channels)
        if plan is None:
            return None
        missed = list(client.missed_pushes(plan.serial) or ())
        for channel, _, lag in plan.subscriptions:
            if lag.pushed_serial is not None:
                missed += channel.pushes_after(lag.pushed_serial, client.id) or ()
        return ExportedClient(
            tuple(_exported(*each) for each in plan.subscriptions),
            tuple(push.event for push in sorted(missed)),
        )

    def restore(
        self,
        connection_id: str,
        link: Link,
        foreign_offset: str | None,
        subscriptions: Collection[ExportedSubscription],
        pushes: Collection[bytes],
    ) -> bool:
        """Park a client that another node exported; False if that is impossible here."""
        if self._registry.find(connection_id) is not None:
            return False
        lags: dict[Channel, tuple[int, Lag]] = {}
        for exported in subscriptions:
            channel = self._registry.channels.get(exported.channel)
            lag = None if channel is None else _restored_lag(channel, exported)
            if channel is None or lag is None:
                return False
            lags[channel] = (exported.interval_ms, lag)
        client = self._registry.attach_parked(connection_id, link, foreign_offset)
        for channel, (interval_ms, lag) in lags.items():
            subscription = client.subscribe(channel.name)
            subscription.request(interval_ms)
            channel.join(subscription, interval_ms, lag)
            channel.park(subscription)
        for event in pushes:
            client.log_push(event, self._offsets)
        return True


def _exported(channel: Channel, subscription: Subscription, lag: Lag) -> ExportedSubscription:
    return ExportedSubscription(
        channel.name,
        Position(channel.state.position.epoch, lag.last_seq),
        subscription.requested_ms,
        lag.needs_snapshot,
        None if lag.needs_status or channel.state.is_halted else channel.stale_since_ms is not None,
    )


def _restored_lag(channel: Channel, exported: ExportedSubscription) -> Lag | None:
    """The lag of an exported subscription on this node; None if its position is unknown here."""
    state, seen = channel.state, exported.position
    seq, needs_snapshot = seen.seq, exported.needs_snapshot
    if seen.epoch != state.position.epoch:
        if not state.merges:
            return None
        # A merged stream needs only its state; the client's position is of another history.
        seq, needs_snapshot = state.position.seq, True
    elif not 0 <= seq <= state.position.seq:
        return None
    is_stale = channel.stale_since_ms is not None
    needs_status = exported.stale is not is_stale or state.is_halted
    return Lag(seq, needs_snapshot=needs_snapshot, needs_status=needs_status)
