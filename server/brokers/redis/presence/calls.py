"""Calls the presence scripts, each with one round trip."""

import asyncio
import heapq
import secrets
from collections.abc import Iterable, Mapping, Sequence

from server.brokers.redis.connection.client import evaluate
from server.brokers.redis.connection.keys import Keys, session_keys
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.replies import (
    Reply,
    as_bytes,
    as_bytes_list,
    as_int,
    as_list,
    as_number,
    as_optional_bytes,
)
from server.brokers.redis.log.scripts import Script
from server.brokers.redis.presence.codec import (
    AssertResult,
    ExpireResult,
    JoinResult,
    RemovalResult,
    SessionReply,
    decode_events,
    decode_reply,
    metadata_of,
)
from server.brokers.redis.presence.scripts import PresenceScripts
from server.core.counters import Counters
from server.core.errors import LimitError
from server.core.sessions.events import SessionEvent
from server.core.sessions.participants import SessionSummary
from server.core.sessions.records import (
    SessionKey,
    SessionRules,
    key_of_channel,
    session_channel,
    too_many_sessions,
)
from server.ports import Clock


class SessionCalls:
    """Stateless; raises `FloorcastError` if Redis rejects a call or is unavailable."""

    def __init__(
        self,
        pipeline: Pipeline,
        scripts: PresenceScripts,
        keys: Keys,
        clock: Clock,
        rules: SessionRules,
        counters: Counters,
    ) -> None:
        self._pipeline = pipeline
        self._scripts = scripts
        self._keys = keys
        self._clock = clock
        self._rules = rules
        self._counters = counters

    def now_ms(self) -> int:
        """The time passed to the scripts."""
        return int(self._clock.time() * 1000)

    # --- one session

    async def join(
        self, connection_id: str, user_id: str, key: SessionKey, node: str, facts: bytes = b""
    ) -> JoinResult:
        """Add a connection; without facts a missing session is not created."""
        outcome, *session = as_list(
            await self._run(
                self._scripts.join,
                key,
                *(connection_id.encode(), user_id.encode(), node.encode(), facts, _new_mark()),
            )
        )
        return JoinResult(as_bytes(outcome), self._decode(session) if session else None)

    async def leave(self, connection_id: str, key: SessionKey, *, lost_by: str = "") -> int:
        """Remove a connection; returns when the session is due, 0 for never.

        If a node has lost it, its user keeps presence for the grace period. Another node may have
        resumed it since: then it stays.
        """
        grace_ms = int(self._rules.grace_seconds * 1000) if lost_by else 0
        return as_int(
            await self._run(
                self._scripts.leave, key, connection_id.encode(), grace_ms, lost_by.encode()
            )
        )

    async def events(self, key: SessionKey, revision: int) -> list[SessionEvent] | None:
        """The events after a revision; None if Redis does not have all of them."""
        reply = await self._run(self._scripts.events, key, b"%d-0" % (revision + 1))
        return decode_events(session_channel(*key), revision, as_list(reply))

    async def kick(self, key: SessionKey, user_id: str) -> RemovalResult:
        """Remove a user with all connections."""
        return _removal(await self._run(self._scripts.kick, key, user_id.encode()))

    async def close(self, key: SessionKey) -> RemovalResult:
        """Close a session: remove everybody and reject later joins."""
        return _removal(await self._run(self._scripts.close, key))

    async def participants(self, key: SessionKey) -> SessionReply | None:
        """The session, or None if it does not exist."""
        session = as_list(await self._run(self._scripts.participants, key))
        return self._decode(session) if session else None

    async def expire(
        self, key: SessionKey, dead: Sequence[str] = (), *, grace_ms: int = 0
    ) -> ExpireResult:
        """Remove users whose grace period is over; connections of dead nodes count as lost."""
        outcome, *rest = as_list(
            await self._run(self._scripts.expire, key, grace_ms, *(node.encode() for node in dead))
        )
        if outcome == b"ok":
            return ExpireResult(exists=True, due_ms=as_int(rest[0]))
        return ExpireResult(exists=False, facts=as_bytes(rest[0]) if rest else b"")

    async def assert_members(
        self,
        key: SessionKey,
        node: str,
        connections: Mapping[str, str],
        *,
        facts: bytes,
        mark: bytes,
        declared_dead: bool,
    ) -> AssertResult:
        """Restore this node's connections after Redis may have lost them."""
        pairs = (part.encode() for pair in connections.items() for part in pair)
        outcome, *rest = as_list(
            await self._run(
                self._scripts.assert_members,
                key,
                *(facts, mark, _new_mark(), b"1" if declared_dead else b"", node.encode(), *pairs),
            )
        )
        if outcome == b"closed":
            return AssertResult(as_number(rest[0]))
        missing, *reply = rest
        session = self._decode(reply)
        return AssertResult(
            session.participants.revision,
            session,
            frozenset(each.decode() for each in as_bytes_list(missing)),
            is_new=outcome == b"made",
        )

    async def publish(self, key: SessionKey, message: bytes) -> None:
        """Publish a message to all nodes, without any change in Redis."""
        await self._pipeline.run((b"PUBLISH", self._base(key), message))

    # --- limits of sessions

    async def claim(
        self, key: SessionKey, user_id: str, *, check_limits: bool = True
    ) -> LimitError | None:
        """Count a session in total, for its org and for its creator; returns a limit's error.

        At a limit it is counted nowhere.
        """
        name, rules = session_channel(*key).encode(), self._rules
        counts = (
            (self._keys.sessions(), rules.max_sessions, too_many_sessions),
            (self._keys.org_sessions(key[0]), rules.max_sessions_per_org, rules.too_many_of_org),
            (
                self._keys.user_sessions(key[0], user_id),
                rules.max_sessions_per_user,
                rules.too_many_created,
            ),
        )
        counted = await asyncio.gather(
            *(self._claim(each, name, limit if check_limits else 0) for each, limit, _ in counts)
        )
        if all(counted):
            return None
        added = [each for (each, _, _), done in zip(counts, counted, strict=True) if done]
        await asyncio.gather(*(self._pipeline.run((b"SREM", each, name)) for each in added))
        return next(
            error() for (_, _, error), done in zip(counts, counted, strict=True) if not done
        )

    async def unclaim(self, key: SessionKey, user_id: str) -> None:
        """Undo `claim`."""
        name = session_channel(*key).encode()
        sets = (
            self._keys.sessions(),
            self._keys.org_sessions(key[0]),
            self._keys.user_sessions(key[0], user_id),
        )
        await asyncio.gather(*(self._pipeline.run((b"SREM", each, name)) for each in sets))

    async def sessions_of(self, org: str, after: str, limit: int) -> list[SessionSummary]:
        """The sessions of an org whose ids follow `after`, sorted by id."""
        names = await self._pipeline.run((b"SMEMBERS", self._keys.org_sessions(org)))
        keys = (key_of_channel(each.decode(errors="replace")) for each in as_bytes_list(names))
        session_ids = heapq.nsmallest(
            limit, (each[1] for each in keys if each is not None and each[1] > after)
        )
        found = await asyncio.gather(*(self._summary((org, each)) for each in session_ids))
        return [each for each in found if each is not None]

    async def _summary(self, key: SessionKey) -> SessionSummary | None:
        """A session without its members; None if it has expired meanwhile."""
        room, users, *_ = session_keys(self._base(key))
        count, fields = await asyncio.gather(
            self._pipeline.run((b"HLEN", users)),
            self._pipeline.run((b"HMGET", room, b"facts", b"closed")),
        )
        facts, closed = map(as_optional_bytes, as_list(fields))
        if facts is None:
            return None
        return SessionSummary(key[1], as_int(count), closed is not None, metadata_of(facts))

    async def count(self) -> int:
        """The number of sessions."""
        return as_int(await self._pipeline.run((b"SCARD", self._keys.sessions())))

    # --- the nodes

    async def add_node_sessions(self, node: str, keys: Iterable[SessionKey]) -> None:
        """Register sessions that a node maintains, so that others can take them over."""
        names = [session_channel(*key).encode() for key in keys]
        if names:
            await self._pipeline.run((b"SADD", self._keys.node_sessions(node), *names))

    async def remove_node_sessions(self, node: str, keys: Iterable[SessionKey]) -> None:
        """Deregister sessions of a node."""
        names = [session_channel(*key).encode() for key in keys]
        if names:
            await self._pipeline.run((b"SREM", self._keys.node_sessions(node), *names))

    async def node_sessions(self, node: str) -> list[SessionKey]:
        """The sessions registered for a node."""
        reply = await self._pipeline.run((b"SMEMBERS", self._keys.node_sessions(node)))
        found = as_bytes_list(reply)
        keys = [key_of_channel(each.decode(errors="replace")) for each in found]
        known = [each for each in keys if each is not None]
        self._count_malformed(len(keys) - len(known))
        return known

    async def delete_node_sessions(self, node: str) -> None:
        """Deregister all sessions of a node."""
        await self._pipeline.run((b"DEL", self._keys.node_sessions(node)))

    def _decode(self, reply: list[Reply]) -> SessionReply:
        session = decode_reply(reply)
        self._count_malformed(session.malformed_count)
        return session

    def _count_malformed(self, count: int) -> None:
        if count:
            self._counters.add("broker.strange", count)

    def _base(self, key: SessionKey) -> bytes:
        return self._keys.base(session_channel(*key))

    async def _claim(self, name: bytes, member: bytes, limit: int) -> bool:
        command = evaluate(self._scripts.claim, [name], member, limit)
        return bool(await self._pipeline.run(command))

    async def _run(self, script: Script, key: SessionKey, *arguments: bytes | int) -> Reply:
        base = self._base(key)
        return await self._pipeline.run(
            evaluate(script, session_keys(base), base, self.now_ms(), *arguments)
        )


def _new_mark() -> bytes:
    # Distinguishes a session from a later one of the same name.
    return secrets.token_hex(8).encode()


def _removal(reply: Reply) -> RemovalResult:
    outcome, *counts = as_list(reply)
    return RemovalResult(as_bytes(outcome), *map(as_int, counts))
