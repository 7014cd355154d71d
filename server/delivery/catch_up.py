"""What a client lacks that was cut off and says which event it saw last."""

from dataclasses import dataclass

from server.core.log.backlog import Lag
from server.core.recovery.checkpoints import Checkpoint
from server.core.recovery.offsets import Offsets
from server.delivery.channel import Channel
from server.delivery.clients import Client


@dataclass(frozen=True, slots=True)
class ResumePlan:
    """The write that the client saw last, and how far that leaves it in each of its topics."""

    serial: int
    lags: dict[Channel, Lag]


def plan_resume(client: Client, offset: str | None, offsets: Offsets) -> ResumePlan | None:
    """How far it had come; None where that, or all that came since, cannot be told.

    Without an offset it had seen nothing of this connection. One of an earlier connection, or of
    the node that it was on before, is the same: it is sent until something newer has come.
    """
    trail = client.checkpoints
    assert trail is not None
    begins = offset is None or offset == trail.foreign_offset
    serial = trail.base_serial if begins else offsets.parse(offset)
    if serial is None or serial > client.last_serial:
        return None
    serial = max(serial, trail.base_serial)
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
    """How far it had come, in the positions of now."""
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
    trail, view = client.checkpoints, channel.state
    assert trail is not None
    assert channel.write_index is not None
    mark = trail.find(channel, serial)
    answer = trail.unconfirmed_reply(channel, serial)
    seq = None if mark is None else _seq_at(channel, mark, serial)
    if view.merges:
        if seq is None:
            lag = Lag(min(view.position.seq, trail.last(channel).seq), needs_snapshot=True)
        else:
            lag = Lag(seq, channel.write_index.ts_after(seq))
            if lag.oldest_ms is None and seq != view.position.seq:
                lag.needs_snapshot = True
        if answer is not None or (mark is not None and mark.needs_snapshot):
            # Its state is all that anybody needs, where there is one.
            lag.needs_snapshot = view.position.seq > 0
    elif seq is None or view.since(seq) is None or (answer is not None and answer.had_position):
        return None
    else:
        lag = Lag(seq)
    lag.needs_status = channel.status_serial > serial or (mark is not None and mark.needs_status)
    if channel.push_log is not None:
        # What was said before it came does not concern it.
        told = serial if mark is None else max(serial, mark.serial)
        if mark is not None and mark.pushed_serial is not None:
            told = min(told, mark.pushed_serial)
        sayings = channel.push_log.after(told, client.id)
        if sayings is None:
            return None
        lag.pushed_serial = told if sayings else None
    return lag
