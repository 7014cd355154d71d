"""Feeds that read other systems; each needs an extra, and is imported when it is used."""

from collections.abc import Mapping
from importlib import import_module

from server.feeds.errors import FeedError
from server.ports import Feed, FeedFactory, FeedOptions

# By the feed's name: its module, its class, and the extra with its package.
_SOURCES: Mapping[str, tuple[str, str, str]] = {
    "ccxt": ("server.feeds.sources.ccxt.feed", "CcxtFeed", "ccxt"),
    "kafka": ("server.feeds.sources.kafka", "KafkaFeed", "kafka"),
    "nats": ("server.feeds.sources.nats", "NatsFeed", "nats"),
    "postgres": ("server.feeds.sources.postgres", "PostgresFeed", "postgres"),
    "redis-stream": ("server.feeds.sources.redis_stream", "RedisStreamFeed", "server"),
}
SOURCE_NAMES = tuple(_SOURCES)


def source(name: str) -> FeedFactory:
    """What builds the feed of a source; raises `FeedError` if its package is not installed."""
    module, kind, extra = _SOURCES[name]

    def build(options: FeedOptions) -> Feed:
        try:
            factory: FeedFactory = getattr(import_module(module), kind)
        except ImportError as error:
            raise FeedError(
                f"the feed {name} needs a package ({error}): pip install 'floorcast[{extra}]'"
            ) from None
        return factory(options)

    return build
