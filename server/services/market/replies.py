"""Builds the reply to one subscription: its position, missed messages or snapshot."""

from dataclasses import dataclass

import orjson

from client_sdk.contract import SubscriptionStatus
from server.core.log.entries import Entry, Position
from server.core.market.topic_state import TopicState
from server.delivery.channel import Channel
from server.services.market.past import Newest, Past, SinceTime, entries_since_time
from server.services.market.topic_subscriptions import state_of
from server.services.node_subscriptions import Missed, entries_since

Reply = dict[str, object]


@dataclass(frozen=True, slots=True)
class SubscribeReply:
    """A reply and its size; if `snapshot_pending`, the snapshot must follow as a message."""

    body: Reply
    used_bytes: int = 0
    snapshot_pending: bool = False


def subscribe_reply(
    channel: Channel,
    interval_ms: int,
    *,
    past: Past,
    missed: Missed | None,
    newest: Newest | None,
    known: bool,
    max_bytes: int,
) -> SubscribeReply:
    """The reply to a subscription: every message of the requested past, or a snapshot.

    `recovered` is true only if the reply has all missed messages, or if a merged stream's
    snapshot replaces them. The reply never contains a part of them: if they exceed `max_bytes`,
    it falls back to the last messages, if any are requested, and else to the snapshot.
    """
    state = state_of(channel)
    reply = connected_reply(channel, interval_ms, known=known)
    entries = _missed_entries(state, past, missed, newest)
    if entries is not None:
        used = sum(len(entry.data) for entry in entries)
        if used <= max_bytes:
            reply["recovered"] = True
            reply["missed"] = [orjson.Fragment(state.body(entry)) for entry in entries]
            if not state.merges or past.since == state.position:
                return SubscribeReply(reply, used)
    elif newest is not None and past.last:
        last = _last_that_fit(newest.up_to_date(state)[-past.last :], max_bytes)
        if last:
            reply["missed"] = [orjson.Fragment(state.body(entry)) for entry in last]
            return SubscribeReply(reply, sum(len(entry.data) for entry in last))
    snapshot = state.snapshot()
    if snapshot is None:
        return SubscribeReply(reply)
    if len(snapshot) <= max_bytes:
        reply["snapshot"] = orjson.Fragment(snapshot)
        return SubscribeReply(reply, len(snapshot))
    # A request for many deep books: the remaining snapshots follow as the client reads.
    return SubscribeReply(reply, snapshot_pending=state.merges)


def connected_reply(
    channel: Channel, interval_ms: int, seq: int | None = None, *, known: bool
) -> Reply:
    """A reply with a position only: the newest one, or the last `seq` sent to the client."""
    state = state_of(channel)
    position = state.position
    return {
        "status": SubscriptionStatus.CONNECTED.value,
        "state": state.feed_state(channel.stale_since_ms).value,
        "known": known or position.seq > 0,
        "epoch": position.epoch,
        "seq": position.seq if seq is None else seq,
        "interval_ms": interval_ms,
        "recovered": False,
        "snapshot": None,
        "missed": [],
    }


def _missed_entries(
    state: TopicState, past: Past, missed: Missed | None, newest: Newest | None
) -> list[Entry] | None:
    """The entries of the requested past; None if they are unknown, or if none is requested."""
    since = past.since
    if since is None:
        return None
    if state.merges:
        # The snapshot replaces all messages.
        return [] if isinstance(since, SinceTime) or _is_known(state, since) else None
    if isinstance(since, SinceTime):
        return None if newest is None else entries_since_time(state, newest, since.ts_ms)
    return entries_since(state, since, missed)


def _is_known(state: TopicState, seen: Position) -> bool:
    head = state.position
    return seen.epoch == head.epoch and seen.seq <= head.seq


def _last_that_fit(entries: list[Entry], max_bytes: int) -> list[Entry]:
    """The newest of these entries that fit."""
    count = 0
    for entry in reversed(entries):
        max_bytes -= len(entry.data)
        if max_bytes < 0:
            break
        count += 1
    return entries[len(entries) - count :]
