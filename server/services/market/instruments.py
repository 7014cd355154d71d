"""The instruments that all nodes know: kept in the broker, followed by each node."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from client_sdk.contract import MARKET_NAMESPACE, ErrorCode, InstrumentData
from server.access import Principal
from server.core.errors import FloorcastError, LimitError, RequestError
from server.core.limits.shares import SERVER, Owner, Quota, ShareLimits, Shares
from server.core.market.instruments import Instrument, InstrumentTable, matches
from server.core.market.topics import Topic
from server.core.wire.packets import event_head
from server.core.wire.strict_json import dumps
from server.core.wire.validation import invalid_request
from server.delivery import Hub
from server.ports import Clock, KeptValues, ignore

_FIELDS_KIND = "instruments"
_TOPICS_KIND = "topics"
_MAX_FIELD_BYTES = 4 * 1024
# A topic that is published is recorded again each day, and forgotten after so many without.
_KEEP_SECONDS = 30 * 86_400
_AGAIN_MS = 86_400_000
_MAX_RECORDED = 200_000
_TOPICS_PER_PUT = 1_000
# In one reply.
_MAX_LISTED = 1_000
# Symbols with reference data, which may have 4 KB each.
_SHARES = ShareLimits(total=Quota(50_000), org=Quota(25_000), publisher=Quota(10_000))


@dataclass(frozen=True, slots=True)
class _Follower:
    principal: Principal
    symbols: frozenset[str] | None
    pattern: str

    def wants(self, symbol: str) -> bool:
        is_listed = self.symbols is None or symbol in self.symbols
        allowed = self.principal.may_use_symbol(symbol)
        return allowed and is_listed and matches(self.pattern, symbol)


class Instruments:
    """The instruments, and the connections that follow them."""

    def __init__(self, kept: KeptValues, hub: Hub, clock: Clock) -> None:
        self._kept = kept
        self._hub = hub
        self._clock = clock
        self.table = InstrumentTable()
        self._followers: dict[str, _Follower] = {}
        # Who set the reference data of each symbol first; of other nodes and runs it is unknown.
        self._owners: dict[str, Owner] = {}
        self._shares: Shares[str] = Shares(_SHARES)
        # Published topics that are to be recorded, and when each was recorded last.
        self._unrecorded: dict[str, None] = {}
        self._evicted: dict[str, None] = {}
        self._recorded_ms: dict[str, int] = {}
        self._on_topic: Callable[[Topic], None] = ignore
        self._on_trading_state: Callable[[Instrument], None] = ignore
        kept.follow(_FIELDS_KIND, self._on_fields_kept)
        kept.follow(_TOPICS_KIND, self._on_topic_kept)

    def listen(
        self,
        *,
        on_topic: Callable[[Topic], None] = ignore,
        on_trading_state: Callable[[Instrument], None] = ignore,
    ) -> None:
        """Call back if a topic is published for the first time, or if trading stops or goes on."""
        self._on_topic, self._on_trading_state = on_topic, on_trading_state

    # --- publishers

    def record(self, topic: Topic, ts_ms: int) -> None:
        """Record that a public topic was published; `flush` tells the other nodes."""
        name = topic.name
        if self._recorded_ms.get(name, 0) + _AGAIN_MS <= ts_ms:
            self._recorded_ms[name] = ts_ms
            self._unrecorded[name] = None
            if len(self._recorded_ms) > _MAX_RECORDED:
                del self._recorded_ms[next(iter(self._recorded_ms))]

    def forget(self, name: str) -> None:
        """Record that a topic was evicted; a no-op for one that is not known."""
        if self._recorded_ms.pop(name, None) is not None:
            self._unrecorded.pop(name, None)
            self._evicted[name] = None

    async def flush(self) -> None:
        """Keep what was recorded since the last call; it is tried again if the broker is down."""
        while self._evicted:
            name = next(iter(self._evicted))
            try:
                await self._kept.delete(_TOPICS_KIND, name)
            except FloorcastError:
                return
            del self._evicted[name]
            if name in self._recorded_ms:
                # It was published again meanwhile.
                self._unrecorded[name] = None
        while self._unrecorded:
            names = list(self._unrecorded)[:_TOPICS_PER_PUT]
            try:
                await self._kept.put(
                    _TOPICS_KIND,
                    dict.fromkeys(names, b"1"),
                    expires_at=self._clock.time() + _KEEP_SECONDS,
                )
            except LimitError:
                # There are too many: these are served, but no pattern finds them.
                pass
            except FloorcastError:
                return
            for name in names:
                del self._unrecorded[name]

    async def put(
        self, symbol: str, fields: Mapping[str, object], owner: Owner = SERVER
    ) -> Instrument:
        """Set reference data of a symbol; other fields stay, and null removes one.

        Raises `RequestError` if the symbol or a field is invalid, and `LimitError` if the owner
        has set too many symbols.
        """
        Topic.parse(f"PRICE:{symbol}")
        try:
            InstrumentData.model_validate(dict(fields))
        except ValidationError as error:
            raise invalid_request(error, f"{symbol}: ") from None
        known = self.table.get(symbol)
        merged = {**({} if known is None else known.fields), **fields}
        merged = {name: value for name, value in merged.items() if value is not None}
        try:
            encoded = dumps(merged)
        except ValueError as error:
            raise RequestError(ErrorCode.REQUEST_INVALID, f"{symbol}: {error}") from None
        if len(encoded) > _MAX_FIELD_BYTES:
            raise LimitError(
                ErrorCode.LIMIT_PAYLOAD,
                f"an instrument may have at most {_MAX_FIELD_BYTES} bytes",
                details={"limit": _MAX_FIELD_BYTES},
            )
        if known is None or merged != known.fields:
            expires_at = self._clock.time() + 10 * 365 * 86_400
            is_new = self._add_owner(symbol, owner)
            try:
                await self._kept.put(_FIELDS_KIND, {symbol: encoded}, expires_at=expires_at)
            except BaseException:
                if is_new:
                    self._remove_owner(symbol)
                raise
        return Instrument(symbol, merged, () if known is None else known.streams)

    def _add_owner(self, symbol: str, owner: Owner) -> bool:
        """Count a symbol to who sets it first; False if it is counted, raises `LimitError`."""
        if symbol in self._owners:
            return False
        self._owners[symbol] = owner
        self._shares.put(owner, symbol, 1)
        surplus = None if owner == SERVER else self._shares.surplus(owner)
        if surplus is not None:
            self._remove_owner(symbol)
            raise surplus.error("instruments")
        return True

    def _remove_owner(self, symbol: str) -> None:
        owner = self._owners.pop(symbol, None)
        if owner is not None:
            self._shares.remove(owner, symbol)

    # --- readers

    async def find(
        self,
        principal: Principal,
        symbols: Iterable[str] | None = None,
        pattern: str = "*",
        after: str = "",
        limit: int = _MAX_LISTED,
    ) -> tuple[list[Instrument], bool]:
        """The instruments that a principal may use, in order, and whether there are more."""
        found: list[Instrument] = []
        wanted = None if symbols is None else frozenset(symbols)
        for part in self.table.search(pattern, after):
            for each in part:
                if not principal.may_use_symbol(each.symbol):
                    continue
                if wanted is not None and each.symbol not in wanted:
                    continue
                if len(found) == min(limit, _MAX_LISTED):
                    return found, True
                found.append(each)
            await asyncio.sleep(0)
        return found, False

    def follow(
        self,
        connection_id: str,
        principal: Principal,
        symbols: Iterable[str] | None = None,
        pattern: str = "*",
    ) -> None:
        """Send a connection each change from now on; replaces what it followed before."""
        wanted = None if symbols is None else frozenset(symbols)
        self._followers[connection_id] = _Follower(principal, wanted, pattern)

    def is_followed_by(self, connection_id: str) -> bool:
        """Whether a connection gets changes."""
        return connection_id in self._followers

    def set_principal(self, connection_id: str, principal: Principal) -> None:
        """Apply a refreshed token."""
        known = self._followers.get(connection_id)
        if known is not None:
            self._followers[connection_id] = _Follower(principal, known.symbols, known.pattern)

    def unfollow(self, connection_id: str) -> None:
        """Send a connection no more changes; a no-op if it follows nothing."""
        self._followers.pop(connection_id, None)

    # --- what the broker keeps

    def _on_fields_kept(self, symbol: str, encoded: bytes | None) -> None:
        if encoded is None:
            self._remove_owner(symbol)
        else:
            self._add_owner(symbol, SERVER)
        before = self.table.get(symbol)
        instrument = self.table.set_fields(symbol, encoded)
        was = None if before is None else before.trading_state
        if was is not instrument.trading_state:
            self._on_trading_state(instrument)
        self._send(instrument)

    def _on_topic_kept(self, name: str, recorded: bytes | None) -> None:
        topic = Topic.parse(name)
        if recorded is None:
            # The next message records it again.
            self._recorded_ms.pop(name, None)
            self._send(self.table.remove_stream(topic))
            return
        instrument = self.table.add_stream(topic)
        if instrument is not None:
            self._on_topic(topic)
            self._send(instrument)

    def _send(self, instrument: Instrument) -> None:
        if not self._followers:
            return
        event = event_head(MARKET_NAMESPACE, "instrument", dumps(instrument.body()))
        for connection_id, follower in tuple(self._followers.items()):
            if follower.wants(instrument.symbol):
                self._hub.send_to(connection_id, event)
