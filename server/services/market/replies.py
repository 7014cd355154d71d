"""What a client is told of one topic that it subscribed to: where it stands, and what it lacks."""

from dataclasses import dataclass

import orjson

from client_sdk.contract import SubscriptionStatus
from server.core.log.entries import Entry, Position
from server.delivery.topic_state import TopicView
from server.services.node_subscriptions import up_to_now

Reply = dict[str, object]


@dataclass(frozen=True, slots=True)
class Answer:
    """The state of a topic, how large it is, and whether its snapshot comes as a message."""

    reply: Reply
    used_bytes: int = 0
    owes_snapshot: bool = False


def answer(
    view: TopicView,
    pace: int,
    *,
    seen: Position | None,
    missed: list[Entry] | None,
    room_bytes: int,
) -> Answer:
    """Exactly what came after `seen`, or the state as it is and `recovered: false`.

    A merged stream recovers by its state. What does not fit is not told by halves.
    """
    reply = connected(view, pace)
    lacking = None if seen is None else _lacking(view, seen, missed)
    if lacking is not None:
        used = sum(len(entry.data) for entry in lacking)
        if used <= room_bytes:
            reply["recovered"] = True
            reply["missed"] = [orjson.Fragment(view.message(entry)) for entry in lacking]
            if not view.merges or seen == view.position:
                return Answer(reply, used)
    snapshot = view.snapshot()
    if snapshot is None:
        return Answer(reply)
    if len(snapshot) <= room_bytes:
        reply["snapshot"] = orjson.Fragment(snapshot)
        return Answer(reply, len(snapshot))
    # Many deep books at once: the rest come as messages, as the client reads.
    return Answer(reply, owes_snapshot=view.merges)


def connected(view: TopicView, pace: int, seq: int | None = None) -> Reply:
    """Where a subscription stands: at the head, or at what was last sent on it."""
    position = view.position
    return {
        "status": SubscriptionStatus.CONNECTED.value,
        "epoch": position.epoch,
        "seq": position.seq if seq is None else seq,
        "interval_ms": pace,
        "recovered": False,
        "snapshot": None,
        "missed": [],
    }


def _lacking(view: TopicView, seen: Position, missed: list[Entry] | None) -> list[Entry] | None:
    """What lies between the client's place and the view's, or None where that cannot be told."""
    if not view.merges:
        return up_to_now(view, seen, missed)
    head = view.position
    return [] if seen.epoch == head.epoch and seen.seq <= head.seq else None
