"""Opens a feed by name: a built-in one, or one of an installed package."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

from server.feeds.errors import FeedError
from server.feeds.replay import ReplayFeed
from server.feeds.simulated import SimulatedFeed
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
    offers = entry_points(group=ENTRY_POINT_GROUP)
    matching = [offer for offer in offers if offer.name == kind]
    if not matching:
        known = sorted({"none", "replay:FILE", "simulated", *offers.names})
        raise FeedError(f"unknown feed {kind!r}: use one of {', '.join(known)}")
    if len(matching) > 1:
        # The order of entry points depends on the installation.
        raise FeedError(f"several packages provide a feed {kind!r}: {_package_names(matching)}")
    try:
        factory: FeedFactory = matching[0].load()
        feed = factory(options)
    # Third-party code may raise anything.
    except Exception as error:
        raise FeedError(
            f"the feed {kind!r} of {_package_names(matching)} failed to load: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(feed, "run", None)):
        raise FeedError(f"the feed {kind!r} of {_package_names(matching)} has no run method")
    return feed


def _package_names(candidates: list[EntryPoint]) -> str:
    return ", ".join(sorted(offer.dist.name if offer.dist else "?" for offer in candidates))
