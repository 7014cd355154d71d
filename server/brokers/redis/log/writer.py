"""Puts what is published at the end of its channel's log: one program, one round trip."""

from collections.abc import Callable

from client_sdk.contract import ErrorCode
from server.brokers.redis.connection.keys import Keys, claim_of, head_of, log_of
from server.brokers.redis.connection.pipeline import Pipeline
from server.brokers.redis.connection.wire import evaluate
from server.brokers.redis.log.codec import tail
from server.brokers.redis.log.scripts import Scripts
from server.core.errors import LimitError, Moved, RequestError
from server.core.log.entries import Position, Receipt
from server.core.log.idempotency import Claim

# So many changes of a book are read and applied by whoever asks for it, before it is stored whole.
_UPDATES_A_WHOLE = 64


class LogWriter:
    """The part of the `Broker` port that publishes."""

    def __init__(
        self,
        pipeline: Pipeline,
        scripts: Scripts,
        keys: Keys,
        *,
        new_epoch: Callable[[], bytes],
        entry_bytes: int,
    ) -> None:
        self._pipeline = pipeline
        self._scripts = scripts
        self._keys = keys
        self._new_epoch = new_epoch
        self._entry_bytes = entry_bytes
        # How many changes of each book stand in the log since it was stored whole, as far as known.
        self._unstored: dict[str, int] = {}

    async def find(self, channel: str, claim: Claim) -> Receipt | None:
        spoken = self._keys.spoken(channel)
        known = await self._pipeline.run((b"GET", claim_of(spoken, claim.key)))
        return None if known is None else _claimed(known, claim)

    async def publish(
        self,
        channel: str,
        data: bytes,
        ts_ms: int,
        *,
        kind: str = "update",
        claim: Claim | None = None,
        whole: Callable[[], bytes] | None = None,
        kept: bool = False,
        expect: Position | None = None,
    ) -> Receipt:
        spoken = self._keys.spoken(channel)
        keys = [head_of(spoken), log_of(spoken)]
        if claim is not None:
            keys.append(claim_of(spoken, claim.key))
        said = tail(data, ts_ms, kind)
        stored = b""
        if whole is not None and kind == "snapshot":
            stored = said
        elif (
            whole is not None and self._unstored.get(channel, _UPDATES_A_WHOLE) >= _UPDATES_A_WHOLE
        ):
            # Others that publish at the same time send it too: once more than needed, at most.
            stored = tail(whole(), ts_ms, "snapshot")
        if max(len(said), len(stored)) + 256 > self._entry_bytes:
            raise LimitError(ErrorCode.LIMIT_PAYLOAD, "the broker takes no entry of this size")
        outcome, *told = await self._pipeline.run(
            evaluate(
                self._scripts.publish,
                keys,
                self._new_epoch(),
                said,
                spoken,
                b"book" if whole is not None else b"kept" if kept else b"last",
                ts_ms,
                b"" if expect is None else b"%b %d" % (expect.epoch.encode(), expect.seq),
                stored,
                b"" if claim is None else claim.digest.hex().encode(),
            )
        )
        if outcome == 1:
            assert claim is not None
            return _claimed(told[0], claim)
        position = Position(told[0].decode(), told[1])
        if outcome == 2:
            self._unstored.pop(channel, None)
            raise Moved
        if whole is not None:
            self._unstored[channel] = told[2]
        return Receipt(position, ts_ms)


def _claimed(known: bytes, claim: Claim) -> Receipt:
    digest, epoch, seq, ts_ms = known.decode().split(" ")
    if digest != claim.digest.hex():
        raise RequestError(
            ErrorCode.PUBLISH_CONFLICT, "another message was published under this id"
        )
    return Receipt(Position(epoch, int(seq)), int(ts_ms))
