"""Opens a feed by name: a built-in one, or one of an installed package."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from server.feeds.errors import FeedError
from server.feeds.replay import ReplayFeed
from server.feeds.simulated import SimulatedFeed
from server.feeds.sources import SOURCE_NAMES, source
from server.plugins import PluginError, create_plugin, plugin_names
from server.ports import Feed, FeedFactory, FeedOptions

ENTRY_POINT_GROUP = "floorcast.feeds"

# Built-in feeds are not entry points, so that they work in a checkout without installation.
_BUILT_IN: Mapping[str, FeedFactory] = {
    "replay": ReplayFeed,
    "simulated": SimulatedFeed,
    **{name: source(name) for name in SOURCE_NAMES},
}


def open_feeds(
    names: Sequence[str], options: FeedOptions, tables: Mapping[str, Mapping[str, object]]
) -> dict[str, Feed]:
    """Open feeds such as `simulated` and `replay:FILE`, by their names before the colon.

    A table of options can name its `source`: so that two feeds of one kind have different names.
    Raises `FeedError`.
    """
    feeds: dict[str, Feed] = {}
    for each in names:
        name = each.partition(":")[0]
        if name in feeds:
            raise FeedError(
                f"two feeds are named {name}: give one a table [feed.NAME] with a source"
            )
        table = dict(tables.get(name, {}))
        source = table.pop("source", each)
        if not isinstance(source, str):
            raise FeedError(f"feed.{name}.source must be a text such as ccxt:kraken")
        feeds[name] = _open(source, replace(options, name=name, options=table))
    return feeds


def _open(source: str, options: FeedOptions) -> Feed:
    kind, _, argument = source.partition(":")
    options = replace(options, argument=argument)
    if kind in _BUILT_IN:
        return _BUILT_IN[kind](options)
    return _plugin(kind, options)


def _plugin(kind: str, options: FeedOptions) -> Feed:
    try:
        feed: Feed | None = create_plugin(ENTRY_POINT_GROUP, kind, "feed", options, _problem_of)
    except PluginError as error:
        raise FeedError(str(error)) from error
    if feed is None:
        known = sorted(
            {
                *("none", "replay:FILE", "simulated"),
                *SOURCE_NAMES,
                *plugin_names(ENTRY_POINT_GROUP),
            }
        )
        raise FeedError(f"unknown feed {kind!r}: use one of {', '.join(known)}")
    return feed


def _problem_of(feed: object) -> str | None:
    return None if callable(getattr(feed, "run", None)) else "has no run method"
