"""Plans what to send to a client that resumes after a given offset."""

from collections.abc import Mapping
from dataclasses import dataclass

from server.core.log.backlog import Lag
from server.core.recovery.checkpoints import Checkpoint, Checkpoints, Pending
from server.core.recovery.offsets import Offsets
from server.delivery.channel import Channel
from server.delivery.clients import Client, Subscription


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """The last write the client saw, and its lag in each subscribed channel."""

    serial: int
    subscriptions: tuple[tuple[Channel, Subscription, Lag], ...]


def plan_resume(
    client: Client, offset: str | None, offsets: Offsets, channels: Mapping[str, Channel]
) -> ResumePlan | None:
    """Compute what a parked client missed; None if that, or the messages, are gone."""
    assert client.resume_range is not None
    serial = client.resume_range.find(offset, offsets)
    if serial is None or client.missed_pushes(serial) is None:
        return None
    planned = []
    for name, subscription in client.subscriptions.items():
        channel = channels[name]
        assert subscription.checkpoints is not None
        lag = _lag_at(client.id, channel, subscription.checkpoints, serial)
        if lag is None:
            return None
        planned.append((channel, subscription, lag))
    return ResumePlan(serial, tuple(planned))


def _seq_at(channel: Channel, checkpoint: Checkpoint, serial: int) -> int | None:
    """The seq the client had at `serial`, in the current epoch; None if unknown."""
    reset, index = channel.reset_serial, channel.write_index
    if checkpoint.serial >= reset:
        return checkpoint.seq_at(serial)
    if serial >= reset and index is not None and checkpoint.shared_index is index:
        return index.seq_at(serial, 0)
    return None


def _lag_at(client_id: str, channel: Channel, checkpoints: Checkpoints, serial: int) -> Lag | None:
    checkpoint = checkpoints.find(serial)
    pending = Pending()
    seq, since_serial = None, serial
    if checkpoint is not None:
        seq = _seq_at(channel, checkpoint, serial)
        # Pushes from before the subscription are not for this client.
        since_serial = max(serial, checkpoint.serial)
        pending = checkpoint.pending or pending
    if pending.pushed_serial is not None:
        since_serial = min(since_serial, pending.pushed_serial)
    pushes = channel.pushes_after(since_serial, client_id)
    if pushes is None:
        return None
    reply = checkpoints.unconfirmed_reply(serial)
    state, oldest_ms, needs_snapshot = channel.state, None, False
    if state.merges:
        head = state.position.seq
        if seq is None:
            seq, needs_snapshot = min(head, checkpoints.last.seq), True
        elif channel.write_index is not None:
            oldest_ms = channel.write_index.ts_after(seq)
            needs_snapshot = oldest_ms is None and seq != head
        if reply is not None or pending.needs_snapshot:
            # The current state is enough, if anything was published.
            needs_snapshot = head > 0
    elif seq is None or state.since(seq) is None or (reply is not None and reply.had_position):
        return None
    return Lag(
        seq,
        oldest_ms,
        needs_snapshot,
        needs_status=channel.status_serial > serial or pending.needs_status,
        pushed_serial=since_serial if pushes else None,
    )
