"""Appends published messages to channel logs, with one script and one round trip each."""

from collections.abc import Callable

from client_sdk.contract import ErrorCode
from server.brokers.redis.connection.client import evaluate
from server.brokers.redis.connection.keys import Keys, claim_key, head_key, log_key
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.replies import as_optional_bytes, malformed_reply
from server.brokers.redis.log.codec import encode_tail
from server.brokers.redis.log.scripts import ScriptsByKind
from server.brokers.redis.log.topic_counts import encode_owner
from server.core.errors import LimitError, RequestError, WriteConflict
from server.core.limits.expiring_shares import ExpiringShares
from server.core.limits.shares import SERVER, Owner
from server.core.log.entries import Position, Receipt
from server.core.log.idempotency import Claim
from server.core.sessions.records import is_session_channel

# A book is stored in full after this many updates, which bounds what readers must apply.
_UPDATES_PER_FULL_STATE = 64


class LogWriter:
    """Implements `find` and `publish` of the `Broker` port."""

    def __init__(
        self,
        pipeline: Pipeline,
        scripts: ScriptsByKind,
        keys: Keys,
        *,
        new_epoch: Callable[[], bytes],
        max_entry_bytes: int,
        histories: ExpiringShares[str],
        session_histories: ExpiringShares[str],
        claims: ExpiringShares[bytes],
    ) -> None:
        self._pipeline = pipeline
        self._scripts = scripts
        self._keys = keys
        self._new_epoch = new_epoch
        self._max_entry_bytes = max_entry_bytes
        # What this node has published lately, by owner.
        self._histories = histories
        self._session_histories = session_histories
        self._claims = claims
        # Updates of each book since it was stored in full, as far as this node knows.
        self._updates_since_full: dict[str, int] = {}

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        base = self._keys.base(channel)
        known = as_optional_bytes(await self._pipeline.run((b"GET", claim_key(base, claim.key))))
        return None if known is None else _decode_claim(known, claim)

    async def publish(
        self,
        channel: str,
        data: bytes,
        ts_ms: int,
        *,
        kind: str = "update",
        claim: Claim | None = None,
        full_state: Callable[[], bytes] | None = None,
        in_history: bool = False,
        expected_head: Position | None = None,
        owner: Owner = SERVER,
    ) -> Receipt:
        base = self._keys.base(channel)
        keys = [head_key(base), log_key(base)]
        if claim is not None:
            keys.append(claim_key(base, claim.key))
        tail = encode_tail(data, ts_ms, kind)
        full_tail = b""
        if full_state is not None and kind == "snapshot":
            full_tail = tail
        elif (
            full_state is not None
            and self._updates_since_full.get(channel, _UPDATES_PER_FULL_STATE)
            >= _UPDATES_PER_FULL_STATE
        ):
            # Concurrent publishers may store it too, which is redundant but harmless.
            full_tail = encode_tail(full_state(), ts_ms, "snapshot")
        if max(len(tail), len(full_tail)) + 256 > self._max_entry_bytes:
            raise LimitError(ErrorCode.LIMIT_PAYLOAD, "the entry is too large for the broker")
        reply = await self._pipeline.run(
            evaluate(
                self._scripts.of(channel).publish,
                keys,
                self._new_epoch(),
                tail,
                base,
                b"book" if full_state is not None else b"kept" if in_history else b"last",
                ts_ms,
                b""
                if expected_head is None
                else b"%b %d" % (expected_head.epoch.encode(), expected_head.seq),
                full_tail,
                b"" if claim is None else claim.digest.hex().encode(),
                encode_owner(owner),
            ),
            durable=True,
        )
        match reply:
            case [0, bytes() as epoch, int() as seq, int() as update_count, int() as history_bytes]:
                position = Position(epoch.decode(), seq)
            case [1, bytes() as known] if claim is not None:
                return _decode_claim(known, claim)
            case [2, *_]:
                self._updates_since_full.pop(channel, None)
                raise WriteConflict
            case _:
                raise malformed_reply()
        if full_state is not None:
            self._updates_since_full[channel] = update_count
        now = ts_ms / 1000
        if claim is not None:
            for key in self._claims.put(keys[2], claim.owner, 1, now):
                self._pipeline.submit_unchecked((b"DEL", key))
        if in_history:
            for name in self._shares_of(channel).put(channel, owner, max(1, history_bytes), now):
                log = log_key(self._keys.base(name))
                self._pipeline.submit_unchecked((b"DEL", log))
        return Receipt(position, ts_ms)

    def forget(self, channel: str) -> None:
        """Forget what this node knows of a deleted channel."""
        self._updates_since_full.pop(channel, None)
        self._shares_of(channel).remove(channel)

    def _shares_of(self, channel: str) -> ExpiringShares[str]:
        return self._session_histories if is_session_channel(channel) else self._histories


def _decode_claim(known: bytes, claim: Claim) -> Receipt:
    digest, epoch, seq, ts_ms = known.decode().split(" ")
    if digest != claim.digest.hex():
        raise RequestError(
            ErrorCode.PUBLISH_CONFLICT, "another message was published under this id"
        )
    return Receipt(Position(epoch, int(seq)), int(ts_ms))
