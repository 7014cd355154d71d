"""Patterns such as `PRICE:BTC*`: all topics of a stream whose symbol matches."""

import re
from dataclasses import dataclass

from client_sdk.contract import ErrorCode, Stream
from client_sdk.contract.names import SYMBOL_MATCH_PATTERN
from server.core.errors import RequestError
from server.core.market.instruments import matches
from server.core.market.topics import Topic
from server.core.market.views import View, parse_view

_MATCH = re.compile(SYMBOL_MATCH_PATTERN.strip("^$"))


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """A stream, a pattern of symbols, and the view of each topic if one is asked for."""

    stream: Stream
    match: str
    view: View | None = None

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether a client means a pattern, and not one topic."""
        return "*" in text

    @staticmethod
    def parse(text: str) -> "TopicPattern":
        """Parse `PRICE:BTC*` or `ORDERBOOK:*@10`; raises `RequestError` with the reason."""
        name, _, rest = text.partition(":")
        match, at, view = rest.partition("@")
        try:
            stream = Stream(name)
        except ValueError:
            raise RequestError(ErrorCode.TOPIC_UNKNOWN, "unknown stream") from None
        if not stream.per_symbol:
            raise RequestError(ErrorCode.TOPIC_UNKNOWN, f"{name} takes no symbol")
        if _MATCH.fullmatch(match) is None:
            raise RequestError(
                ErrorCode.TOPIC_UNKNOWN, f"{name} needs a pattern of symbols such as {name}:BTC*"
            )
        return TopicPattern(stream, match, parse_view(stream, view) if at else None)

    def topic(self, symbol: str) -> Topic:
        """The topic of a symbol that matches."""
        return Topic(self.stream, symbol, self.view)

    def matches(self, topic: Topic) -> bool:
        """Whether it stands for a topic, or for a view of it."""
        symbol = topic.symbol
        return symbol is not None and topic.stream is self.stream and matches(self.match, symbol)
