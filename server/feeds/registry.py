"""Opens a feed by its name: one of ours, or one that an installed package brings along."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points

from server.feeds.errors import FeedError
from server.feeds.replay import ReplayFeed
from server.feeds.simulated import SimulatedFeed
from server.ports import Feed, FeedFactory, FeedOptions

ENTRY_POINT_GROUP = "floorcast.feeds"

# Ours need no metadata: a checkout that was never installed has them too.
_BUILT_IN: Mapping[str, FeedFactory] = {"replay": ReplayFeed, "simulated": SimulatedFeed}


def open_feed(name: str, options: FeedOptions) -> Feed | None:
    """The feed of a name such as `simulated` or `replay:FILE`; `none` is none.

    What follows the first colon becomes the argument of the options. Raises `FeedError`.
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
        raise FeedError(f"there is no feed {kind!r}; there are {', '.join(known)}")
    if len(matching) > 1:
        # Which one would be found first is an accident of the installation.
        raise FeedError(f"several packages bring a feed {kind!r}: {_package_names(matching)}")
    try:
        factory: FeedFactory = matching[0].load()
        feed = factory(options)
    # What a package of others does while it is imported and called is not ours to foresee.
    except Exception as error:
        raise FeedError(
            f"the feed {kind!r} of {_package_names(matching)} has failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(getattr(feed, "run", None)):
        raise FeedError(f"the feed {kind!r} of {_package_names(matching)} has no run method")
    return feed


def _package_names(candidates: list[EntryPoint]) -> str:
    return ", ".join(sorted(offer.dist.name if offer.dist else "?" for offer in candidates))
