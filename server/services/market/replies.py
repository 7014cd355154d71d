"""What a client is told of one topic that it subscribed to: where it stands, and what it lacks."""

from dataclasses import dataclass

import orjson

from client_sdk.contract import SubscriptionStatus
from server.core.log.entries import Entry, Position
from server.delivery.topic_state import TopicState
from server.services.node_subscriptions import entries_since

Reply = dict[str, object]


@dataclass(frozen=True, slots=True)
class SubscribeReply:
    """The state of a topic, how large it is, and whether its snapshot comes as a message."""

    body: Reply
    used_bytes: int = 0
    snapshot_pending: bool = False


def subscribe_reply(
    state: TopicState,
    interval_ms: int,
    *,
    seen: Position | None,
    missed: list[Entry] | None,
    max_bytes: int,
) -> SubscribeReply:
    """Exactly what came after `seen`, or the state as it is and `recovered: false`.

    A merged stream recovers by its state. What does not fit is not told by halves.
    """
    reply = connected_reply(state, interval_ms)
    lacking = None if seen is None else _missed_entries(state, seen, missed)
    if lacking is not None:
        used = sum(len(entry.data) for entry in lacking)
        if used <= max_bytes:
            reply["recovered"] = True
            reply["missed"] = [orjson.Fragment(state.body(entry)) for entry in lacking]
            if not state.merges or seen == state.position:
                return SubscribeReply(reply, used)
    snapshot = state.snapshot()
    if snapshot is None:
        return SubscribeReply(reply)
    if len(snapshot) <= max_bytes:
        reply["snapshot"] = orjson.Fragment(snapshot)
        return SubscribeReply(reply, len(snapshot))
    # Many deep books at once: the rest come as messages, as the client reads.
    return SubscribeReply(reply, snapshot_pending=state.merges)


def connected_reply(state: TopicState, interval_ms: int, seq: int | None = None) -> Reply:
    """Where a subscription stands: at the head, or at what was last sent on it."""
    position = state.position
    return {
        "status": SubscriptionStatus.CONNECTED.value,
        "epoch": position.epoch,
        "seq": position.seq if seq is None else seq,
        "interval_ms": interval_ms,
        "recovered": False,
        "snapshot": None,
        "missed": [],
    }


def _missed_entries(
    state: TopicState, seen: Position, missed: list[Entry] | None
) -> list[Entry] | None:
    """What lies between the client's place and the view's, or None where that cannot be told."""
    if not state.merges:
        return entries_since(state, seen, missed)
    head = state.position
    return [] if seen.epoch == head.epoch and seen.seq <= head.seq else None
