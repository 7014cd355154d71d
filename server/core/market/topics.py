"""Names topics, and the channels that carry them."""

import re
from dataclasses import dataclass, field
from functools import lru_cache

from client_sdk.contract import SYMBOL_PATTERN, ErrorCode, Stream
from server.core.errors import RequestError
from server.core.market.views import View, parse_view

# `$` in Python also matches before a trailing newline; fullmatch does not.
_SYMBOL = re.compile(SYMBOL_PATTERN.strip("^$"))


@dataclass(frozen=True, slots=True)
class Topic:
    """A stream, for a public one the symbol, and for a derived one the view."""

    stream: Stream
    symbol: str | None
    view: View | None = None
    # The topic as clients write it.
    name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        name = self.stream.value
        if self.symbol is not None:
            name = f"{name}:{self.symbol}"
        if self.view is not None:
            name = f"{name}@{self.view.text}"
        object.__setattr__(self, "name", name)

    @staticmethod
    def parse(text: str) -> "Topic":
        """Parse `PRICE:BTCUSDT`, `ORDERBOOK:BTCUSDT@10` or `USER_DATA`.

        Raises `RequestError` with the reason.
        """
        return _parse(text)

    @property
    def source(self) -> "Topic":
        """The topic that a view is derived from; any other topic itself."""
        return self if self.view is None else Topic(self.stream, self.symbol)

    @property
    def is_merged(self) -> bool:
        """Whether a newer message can replace older ones."""
        return self.stream.is_conflated or self.view is not None


# Clients choose these strings, so the cache is bounded; errors are not cached.
@lru_cache(maxsize=4096)
def _parse(text: str) -> Topic:
    # At the first colon: symbols may have one, streams have none.
    name, colon, symbol = text.partition(":")
    try:
        stream = Stream(name)
    except ValueError:
        raise _unknown(_misspelled(text) or "unknown stream") from None
    if not stream.per_symbol:
        if colon:
            raise _unknown(f"{name} takes no symbol")
        return Topic(stream, None)
    symbol, at, view = symbol.partition("@")
    if _SYMBOL.fullmatch(symbol) is None:
        raise _unknown(_misspelled(text) or f"{name} needs a symbol such as {name}:BTCUSDT")
    return Topic(stream, symbol, parse_view(stream, view) if at else None)


def _misspelled(text: str) -> str | None:
    """The error for a topic in lower-case letters; None if it is no topic in upper case either."""
    name, at, view = text.partition("@")
    upper = name.upper() + at + view
    if upper == text or not text.isascii():
        return None
    try:
        topic = _parse(upper)
    except RequestError:
        return None
    return f"topics are in upper case: use {topic.name}"


def _unknown(message: str) -> RequestError:
    return RequestError(ErrorCode.TOPIC_UNKNOWN, message)


def channel_for(topic: Topic, org: str, user_id: str) -> str:
    """The broker's key: shared for a public topic, otherwise one for each user of each org."""
    if topic.symbol is not None:
        return topic.name
    # The lengths keep two users apart whatever characters their names contain.
    return f"{topic.name}@{len(org)}:{org}:{user_id}"
