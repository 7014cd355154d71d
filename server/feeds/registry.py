"""Opens a feed by name: a built-in one, or one of an installed package."""

from collections.abc import Mapping
from dataclasses import replace

from server.feeds.errors import FeedError
from server.feeds.replay import ReplayFeed
from server.feeds.simulated import SimulatedFeed
from server.plugins import PluginError, create_plugin, plugin_names
from server.ports import Feed, FeedFactory, FeedOptions

ENTRY_POINT_GROUP = "floorcast.feeds"

# Built-in feeds are not entry points, so that they work in a checkout without installation.
_BUILT_IN: Mapping[str, FeedFactory] = {"replay": ReplayFeed, "simulated": SimulatedFeed}


def open_feed(name: str, options: FeedOptions) -> Feed | None:
    """Open a feed such as `simulated` or `replay:FILE`; returns None for `none`.

    The text after the first colon becomes `options.argument`. Raises `FeedError`.
    """
    kind, colon, argument = name.partition(":")
    if colon:
        options = replace(options, argument=argument)
    if name == "none":
        return None
    if kind in _BUILT_IN:
        return _BUILT_IN[kind](options)
    return _plugin(kind, options)


def _plugin(kind: str, options: FeedOptions) -> Feed:
    try:
        feed: Feed | None = create_plugin(ENTRY_POINT_GROUP, kind, "feed", options, _problem_of)
    except PluginError as error:
        raise FeedError(str(error)) from error
    if feed is None:
        known = sorted({"none", "replay:FILE", "simulated", *plugin_names(ENTRY_POINT_GROUP)})
        raise FeedError(f"unknown feed {kind!r}: use one of {', '.join(known)}")
    return feed


def _problem_of(feed: object) -> str | None:
    return None if callable(getattr(feed, "run", None)) else "has no run method"
