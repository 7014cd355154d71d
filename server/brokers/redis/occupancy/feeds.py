"""What the feeds of each node publish to, kept in Redis beside the beats that show who lives."""

from collections.abc import Callable, Mapping, Sequence

import orjson
from pydantic import TypeAdapter, ValidationError

from server.brokers.redis.occupancy.occupancy import RedisOccupancy
from server.ports import NodeFeeds

_FEEDS: TypeAdapter[NodeFeeds] = TypeAdapter(NodeFeeds)


class RedisFeedWatch:
    """Implements `FeedWatch`; a node is dead when occupancy finds that, after 1.2 s."""

    def __init__(self, occupancy: RedisOccupancy) -> None:
        self._occupancy = occupancy

    def start(
        self,
        on_dead: Callable[[NodeFeeds, Sequence[NodeFeeds]], None],
        on_rejoined: Callable[[], None],
    ) -> None:
        def on_found(found: list[bytes]) -> None:
            dead, *living = map(_decode, found)
            on_dead(dead, living)

        self._occupancy.watch(on_found, on_rejoined)

    def announce(self, feeds: Mapping[str, Sequence[str]]) -> None:
        mine = NodeFeeds(self._occupancy.node, feeds)
        self._occupancy.announce(orjson.dumps(mine) if feeds else b"")


def _decode(message: bytes) -> NodeFeeds:
    try:
        return _FEEDS.validate_json(message)
    except ValidationError:
        # Of another release: as if it had announced nothing.
        return NodeFeeds("", {})
