"""Writes what Redis keeps and tells of sessions, and reads it back with suspicion."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from server.core.sessions.events import Happening, News
from server.core.sessions.participants import Gathering
from server.core.sessions.presence import Member
from server.core.sessions.records import key_of_channel

_TOLD = frozenset({"joined", "left", "kicked", "barred", "closed", "signal"})


@dataclass(frozen=True, slots=True)
class Reply:
    """A session as a program answers it: who is there, its mark, and when it is due."""

    gathering: Gathering
    facts: bytes
    made: bytes
    due_ms: int


def facts_of(user_id: str, metadata: Mapping[str, object] | None) -> bytes:
    """Who makes a session, and what it is for."""
    return orjson.dumps({"by": user_id, "metadata": metadata or {}})


def maker_of(facts: bytes) -> str:
    """Who made it."""
    return str(orjson.loads(facts)["by"])


def read_reply(reply: list[Any]) -> Reply:
    """Read what the programs answer of a session."""
    revision, closed, facts, made, flat, due_ms = reply
    users = zip(flat[::2], flat[1::2], strict=True)
    numbered = sorted((int(state.split(b" ")[2]), user, state) for user, state in users)
    return Reply(
        Gathering(
            int(revision),
            tuple(_member(user, state) for _, user, state in numbered),
            bool(closed),
            orjson.loads(facts)["metadata"],
        ),
        facts,
        made,
        due_ms,
    )


def _member(user: bytes, state: bytes) -> Member:
    connections, joined_at_ms, _ = state.split(b" ")
    return Member(user.decode(), int(connections), int(joined_at_ms))


def signal(connection_id: str, user_id: str, data: bytes, ts_ms: int) -> bytes:
    """A signal, as it is told to the nodes."""
    return b'{"v":1,"said":"signal","revision":0,"user":%b,"by":%b,"ts":%d,"data":%b}' % (
        orjson.dumps(user_id),
        orjson.dumps(connection_id),
        ts_ms,
        data,
    )


def read_news(channel: str, message: bytes) -> News | None:
    """What happened in a session; None for anything that no node of ours has told."""
    key = key_of_channel(channel)
    if key is None:
        return None
    try:
        said = orjson.loads(message)
    except orjson.JSONDecodeError:
        return None
    match said:
        case {
            "v": 1,
            "said": str(what),
            "revision": int(revision),
            "user": str(user_id),
            "ts": int(ts_ms),
        } if what in _TOLD:
            count, by, data = said.get("count", 0), said.get("by", ""), said.get("data", {})
            if isinstance(count, int) and isinstance(by, str) and isinstance(data, dict):
                encoded = orjson.dumps(data) if data else b"{}"
                return News(key, Happening(what), revision, ts_ms, user_id, count, by, encoded)
    return None
