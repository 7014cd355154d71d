"""Plans what a client that resumes after a given offset is sent, on this node or another."""

from dataclasses import dataclass

from server.core.log.backlog import Lag
from server.core.log.entries import Position
from server.core.recovery.checkpoints import Checkpoint
from server.core.recovery.offsets import Offsets
from server.delivery.channel import Channel
from server.delivery.clients import Client


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """The last write the client saw, and its lag in each subscribed channel."""

    serial: int
    lags: dict[Channel, Lag]


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


def plan_resume(client: Client, offset: str | None, offsets: Offsets) -> ResumePlan | None:
    """Compute what a parked client missed; None if that, or the messages, are gone.

    No offset means that the client saw nothing of this connection. So does the offset of its
    connection to another node: Socket.IO clients repeat it until they receive a newer one.
    """
    checkpoints = client.checkpoints
    assert checkpoints is not None
    is_start = offset is None or offset == checkpoints.foreign_offset
    serial = checkpoints.base_serial if is_start else offsets.parse(offset)
    if serial is None or serial > client.last_serial:
        return None
    serial = max(serial, checkpoints.base_serial)
    if client.push_log is not None and client.push_log.after(serial, client.id) is None:
        return None
    lags: dict[Channel, Lag] = {}
    for channel in client.channels:
        lag = _lag_at(client, channel, serial)
        if lag is None:
            return None
        lags[channel] = lag
    return ResumePlan(serial, lags)


def _seq_at(channel: Channel, checkpoint: Checkpoint, serial: int) -> int | None:
    """The seq the client had at `serial`, in the current epoch; None if unknown."""
    reset = channel.reset_serial
    if checkpoint.serial >= reset:
        return checkpoint.seq_at(serial)
    if (
        serial >= reset
        and checkpoint.shared_index is channel.write_index
        and channel.write_index is not None
    ):
        return channel.write_index.seq_at(serial, 0)
    return None


def _lag_at(client: Client, channel: Channel, serial: int) -> Lag | None:
    checkpoints, state = client.checkpoints, channel.state
    assert checkpoints is not None
    assert channel.write_index is not None
    checkpoint = checkpoints.find(channel, serial)
    reply = checkpoints.unconfirmed_reply(channel, serial)
    seq = None if checkpoint is None else _seq_at(channel, checkpoint, serial)
    if state.merges:
        if seq is None:
            lag = Lag(min(state.position.seq, checkpoints.last(channel).seq), needs_snapshot=True)
        else:
            lag = Lag(seq, channel.write_index.ts_after(seq))
            if lag.oldest_ms is None and seq != state.position.seq:
                lag.needs_snapshot = True
        if reply is not None or (checkpoint is not None and checkpoint.needs_snapshot):
            # The current state is enough, if anything was published.
            lag.needs_snapshot = state.position.seq > 0
    elif seq is None or state.since(seq) is None or (reply is not None and reply.had_position):
        return None
    else:
        lag = Lag(seq)
    lag.needs_status = channel.status_serial > serial or (
        checkpoint is not None and checkpoint.needs_status
    )
    if channel.push_log is not None:
        # Pushes from before the subscription are not for this client.
        since_serial = serial if checkpoint is None else max(serial, checkpoint.serial)
        if checkpoint is not None and checkpoint.pushed_serial is not None:
            since_serial = min(since_serial, checkpoint.pushed_serial)
        pushes = channel.push_log.after(since_serial, client.id)
        if pushes is None:
            return None
        lag.pushed_serial = since_serial if pushes else None
    return lag


def export_client(client: Client, plan: ResumePlan) -> ExportedClient:
    """What another node needs to resume a client as planned; its pushes must be logged."""
    missed = [] if client.push_log is None else client.push_log.after(plan.serial, client.id) or []
    for channel, lag in plan.lags.items():
        if channel.push_log is not None and lag.pushed_serial is not None:
            missed += channel.push_log.after(lag.pushed_serial, client.id) or ()
    return ExportedClient(
        tuple(
            ExportedSubscription(
                channel.name,
                Position(channel.state.position.epoch, lag.last_seq),
                client.requested_ms.get(channel, 0),
                lag.needs_snapshot,
                None if lag.needs_status else channel.stale_since_ms is not None,
            )
            for channel, lag in plan.lags.items()
        ),
        tuple(push.event for push in sorted(missed)),
    )


def restored_lag(channel: Channel, exported: ExportedSubscription) -> Lag | None:
    """The lag of an exported subscription on this node; None if its position is unknown here."""
    state, seen = channel.state, exported.position
    head = state.position
    lag = Lag(seen.seq, needs_snapshot=exported.needs_snapshot)
    if seen.epoch != head.epoch:
        if not state.merges:
            return None
        # A merged stream needs only its state; the client's position is of another history.
        lag = Lag(head.seq, needs_snapshot=True)
    elif not 0 <= seen.seq <= head.seq:
        return None
    lag.needs_status = exported.stale is not (channel.stale_since_ms is not None)
    return lag
