"""Serves the candles of the past."""

from dataclasses import dataclass

from client_sdk.contract import ErrorCode, Stream
from server.access import AuthorizationRule, Principal
from server.core.errors import AccessError
from server.core.market.topics import Topic
from server.services.market.topic_subscriptions import TopicSubscriptions, can_read


@dataclass(frozen=True, slots=True)
class FoundCandles:
    """Bars of a symbol as clients receive them, oldest first."""

    symbol: str
    interval: str
    bars: list[dict[str, object]]

    def body(self) -> dict[str, object]:
        """The bars as clients receive them."""
        return {"symbol": self.symbol, "interval": self.interval, "bars": self.bars}


class Candles:
    """Reads the kept candles, those of trades that were published right now included."""

    def __init__(self, topics: TopicSubscriptions, rule: AuthorizationRule | None = None) -> None:
        self._topics = topics
        self._rule = rule or AuthorizationRule()

    async def find(
        self,
        principal: Principal,
        symbol: str,
        interval: str,
        limit: int,
        before_ms: int | None = None,
    ) -> FoundCandles:
        """The newest bars that begin before a time; none if there are no trades.

        Raises `RequestError` for an unknown interval and `AccessError` without the right.
        """
        topic = Topic.parse(f"{Stream.TRADES}:{symbol}@{interval}")
        if not can_read(principal, topic):
            raise AccessError(ErrorCode.AUTH_FORBIDDEN, f"the token does not allow {topic.name}")
        await self._rule.check_subscribe(principal, topic.source.name)
        series = await self._topics.series(topic)
        return FoundCandles(symbol, interval, series.bodies(series.bars(before_ms, limit)))
