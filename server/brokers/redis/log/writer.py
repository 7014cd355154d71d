"""Puts what is published at the end of its channel's log: one program, one round trip."""

from collections.abc import Callable

from client_sdk.contract import ErrorCode
from server.brokers.redis.connection.keys import Keys, claim_key, head_key, log_key
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.wire import evaluate
from server.brokers.redis.log.codec import encode_tail
from server.brokers.redis.log.scripts import Scripts
from server.core.errors import LimitError, RequestError, WriteConflict
from server.core.log.entries import Position, Receipt
from server.core.log.idempotency import Claim

# So many changes of a book are read and applied by whoever asks for it, before it is stored whole.
_UPDATES_PER_FULL_STATE = 64


class LogWriter:
    """The part of the `Broker` port that publishes."""

    def __init__(
        self,
        pipeline: Pipeline,
        scripts: Scripts,
        keys: Keys,
        *,
        new_epoch: Callable[[], bytes],
        max_entry_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._scripts = scripts
        self._keys = keys
        self._new_epoch = new_epoch
        self._max_entry_bytes = max_entry_bytes
        # How many changes of each book stand in the log since it was stored whole, as far as known.
        self._updates_since_full: dict[str, int] = {}

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        spoken = self._keys.base(channel)
        known = await self._pipeline.run((b"GET", claim_key(spoken, claim.key)))
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
    ) -> Receipt:
        spoken = self._keys.base(channel)
        keys = [head_key(spoken), log_key(spoken)]
        if claim is not None:
            keys.append(claim_key(spoken, claim.key))
        said = encode_tail(data, ts_ms, kind)
        stored = b""
        if full_state is not None and kind == "snapshot":
            stored = said
        elif (
            full_state is not None
            and self._updates_since_full.get(channel, _UPDATES_PER_FULL_STATE)
            >= _UPDATES_PER_FULL_STATE
        ):
            # Others that publish at the same time send it too: once more than needed, at most.
            stored = encode_tail(full_state(), ts_ms, "snapshot")
        if max(len(said), len(stored)) + 256 > self._max_entry_bytes:
            raise LimitError(ErrorCode.LIMIT_PAYLOAD, "the broker takes no entry of this size")
        outcome, *told = await self._pipeline.run(
            evaluate(
                self._scripts.publish,
                keys,
                self._new_epoch(),
                said,
                spoken,
                b"book" if full_state is not None else b"kept" if in_history else b"last",
                ts_ms,
                b""
                if expected_head is None
                else b"%b %d" % (expected_head.epoch.encode(), expected_head.seq),
                stored,
                b"" if claim is None else claim.digest.hex().encode(),
            )
        )
        if outcome == 1:
            assert claim is not None
            return _decode_claim(told[0], claim)
        position = Position(told[0].decode(), told[1])
        if outcome == 2:
            self._updates_since_full.pop(channel, None)
            raise WriteConflict
        if full_state is not None:
            self._updates_since_full[channel] = told[2]
        return Receipt(position, ts_ms)


def _decode_claim(known: bytes, claim: Claim) -> Receipt:
    digest, epoch, seq, ts_ms = known.decode().split(" ")
    if digest != claim.digest.hex():
        raise RequestError(
            ErrorCode.PUBLISH_CONFLICT, "another message was published under this id"
        )
    return Receipt(Position(epoch, int(seq)), int(ts_ms))
