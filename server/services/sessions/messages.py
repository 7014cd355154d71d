"""Sends the messages and signals of session members, and serves the history."""

import itertools
import secrets
from collections.abc import Awaitable, Mapping
from hashlib import blake2b

import orjson

from server.access import Principal
from server.core.limits.shares import Owner
from server.core.log.idempotency import Claim
from server.core.sessions.records import session_channel
from server.delivery import Hub
from server.ports import Broker, Clock, PresenceManager
from server.services.sessions.encoding import (
    Reply,
    encode_within,
    message_bodies,
    newest_within,
)
from server.services.sessions.service import SessionsService


class SessionMessages:
    """Messages of a session. Every method raises `RequestError` if the connection is no member."""

    def __init__(
        self,
        sessions: SessionsService,
        broker: Broker,
        presence: PresenceManager,
        hub: Hub,
        clock: Clock,
        *,
        message_bytes: int,
        page_bytes: int,
    ) -> None:
        self._sessions = sessions
        self._broker = broker
        self._presence = presence
        self._hub = hub
        self._clock = clock
        self._message_bytes = message_bytes
        self._page_bytes = page_bytes
        # Ids for messages without one: unique, and cheaper than a random id for each.
        self._prefix = f"{secrets.token_hex(6)}-"
        self._numbers = itertools.count(1)
        # Accepted messages.
        self.sent = 0

    def send(
        self,
        connection_id: str,
        principal: Principal,
        session_id: str,
        data: Mapping[str, object],
        identifier: str | None,
    ) -> Awaitable[Reply]:
        """Publish a message to all members, the sender included.

        With an `identifier`, a retry has the position of the first call.
        """
        # No coroutine for the check: a send is what clients do most.
        if self._sessions.is_member(connection_id, principal.org, session_id):
            return self.publish(principal, session_id, data, identifier)
        return self._sessions.refuse_absent((principal.org, session_id))

    async def publish(
        self,
        principal: Principal,
        session_id: str,
        data: Mapping[str, object],
        identifier: str | None,
    ) -> Reply:
        """Publish a message for which the caller has authorized the principal."""
        encoded = encode_within(data, self._message_bytes)
        name = session_channel(principal.org, session_id)
        claim = None
        if identifier is not None:
            key = "\0".join((name, principal.user_id, identifier))
            digest = blake2b(encoded, digest_size=16).digest()
            claim = Claim(key, digest, Owner(principal.org, principal.user_id))
        else:
            identifier = f"{self._prefix}{next(self._numbers)}"
        body = b'{"id":%b,"user_id":%b,"data":%b}' % (
            orjson.dumps(identifier),
            orjson.dumps(principal.user_id),
            encoded,
        )
        receipt = await self._broker.publish(
            name,
            body,
            int(self._clock.time() * 1000),
            claim=claim,
            in_history=True,
            # Not the sender: one who writes in many sessions must not hold all their histories.
            owner=Owner(principal.org, name),
        )
        self.sent += 1
        return {"ok": True, "id": identifier, **receipt.position.body(), "ts": receipt.ts_ms}

    async def signal(
        self,
        connection_id: str,
        principal: Principal,
        session_id: str,
        data: Mapping[str, object],
    ) -> Reply:
        """Send transient data to the other members; members that are behind do not receive it."""
        key = (principal.org, session_id)
        await self._sessions.require_member(connection_id, key)
        encoded = encode_within(data, self._message_bytes)
        await self._presence.signal(key, connection_id, principal.user_id, encoded)
        return {"ok": True}

    async def history(
        self,
        connection_id: str,
        principal: Principal,
        session_id: str,
        before_seq: int | None,
        limit: int,
    ) -> Reply:
        """The newest messages, or those before `before_seq`, in order.

        There are at most `limit`, at least one if there is any, and only so many as fit one page.
        """
        await self._sessions.require_member(connection_id, (principal.org, session_id))
        name = session_channel(principal.org, session_id)
        entries = await self._broker.before(name, before_seq, limit)
        channel = self._hub.channel(name)
        page = newest_within(entries, self._page_bytes)
        return {"ok": True, "messages": [] if channel is None else message_bodies(channel, page)}
