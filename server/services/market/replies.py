"""Builds the reply to one subscription: its position, missed messages or snapshot."""

from dataclasses import dataclass

import orjson

from client_sdk.contract import SubscriptionStatus
from server.core.log.entries import Entry, Position
from server.core.market.topic_state import TopicState
from server.services.node_subscriptions import Missed, entries_since

Reply = dict[str, object]


@dataclass(frozen=True, slots=True)
class SubscribeReply:
    """A reply and its size; if `snapshot_pending`, the snapshot must follow as a message."""

    body: Reply
    used_bytes: int = 0
    snapshot_pending: bool = False


def subscribe_reply(
    state: TopicState,
    interval_ms: int,
    *,
    seen: Position | None,
    missed: Missed | None,
    max_bytes: int,
) -> SubscribeReply:
    """The reply to a subscription: every message after `seen`, or a snapshot.

    `recovered` is true only if the reply has all missed messages, or if a merged stream's
    snapshot replaces them. The reply never contains a part of them: if they exceed `max_bytes`,
    it falls back to the snapshot.
    """
    reply = connected_reply(state, interval_ms)
    entries = None if seen is None else _missed_entries(state, seen, missed)
    if entries is not None:
        used = sum(len(entry.data) for entry in entries)
        if used <= max_bytes:
            reply["recovered"] = True
            reply["missed"] = [orjson.Fragment(state.body(entry)) for entry in entries]
            if not state.merges or seen == state.position:
                return SubscribeReply(reply, used)
    snapshot = state.snapshot()
    if snapshot is None:
        return SubscribeReply(reply)
    if len(snapshot) <= max_bytes:
        reply["snapshot"] = orjson.Fragment(snapshot)
        return SubscribeReply(reply, len(snapshot))
    # A request for many deep books: the remaining snapshots follow as the client reads.
    return SubscribeReply(reply, snapshot_pending=state.merges)


def connected_reply(state: TopicState, interval_ms: int, seq: int | None = None) -> Reply:
    """A reply with a position only: the newest one, or the last `seq` sent to the client."""
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


def _missed_entries(state: TopicState, seen: Position, missed: Missed | None) -> list[Entry] | None:
    """The entries after `seen`; None if they are unknown."""
    if not state.merges:
        return entries_since(state, seen, missed)
    head = state.position
    return [] if seen.epoch == head.epoch and seen.seq <= head.seq else None
