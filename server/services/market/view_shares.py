"""Bounds the views of this node: what they cost in memory, and in time at each change."""

from client_sdk.contract import ErrorCode
from server.access import Principal
from server.core.errors import LimitError
from server.core.limits.shares import Owner, Quota, ShareLimits, Shares
from server.core.market.topics import Topic
from server.core.market.views import DepthView

# A change of a topic is derived for each of its views, some 35 microseconds each.
_OF_TOPIC = ShareLimits(total=Quota(128), org=Quota(64), publisher=Quota(32))
_MIB = 1024 * 1024
_OF_NODE = ShareLimits(
    total=Quota(10_000, 1024 * _MIB),
    org=Quota(5_000, 512 * _MIB),
    publisher=Quota(1_000, 256 * _MIB),
)
# What a view holds at most, about: a grouped one all levels of the book, another one its depth,
# candles the bars that are kept.
_GROUPED_BYTES = 240 * 1024
_LEVEL_BYTES = 400
_BARS_BYTES = 250 * 1024
# Beside the orgs: an anonymous client takes no view of theirs.
_ANONYMOUS = Owner("", "anonymous")


def view_owner(principal: Principal) -> Owner:
    """Who opens a view; all anonymous clients are one."""
    return _ANONYMOUS if principal.anonymous else Owner(principal.org, principal.user_id)


class ViewShares:
    """The open views of each topic and of this node, each counted to the user who opened it."""

    def __init__(self) -> None:
        self._of_node: Shares[str] = Shares(_OF_NODE)
        self._of_topic: dict[str, Shares[str]] = {}
        self._owners: dict[str, tuple[Owner, str]] = {}

    def add(self, owner: Owner, view: Topic) -> None:
        """Count a view that is about to be opened; raises `LimitError` if it may not be."""
        name, source = view.name, view.source.name
        of_topic = self._of_topic.setdefault(source, Shares(_OF_TOPIC))
        of_topic.put(owner, name, 1)
        self._of_node.put(owner, name, _size_of(view))
        self._owners[name] = (owner, source)
        surplus = of_topic.surplus(owner)
        resource = f"views of {source}"
        if surplus is None:
            surplus, resource = self._of_node.surplus(owner), "views on a node"
        if surplus is not None:
            self.remove(name)
            refused = surplus.error(resource)
            raise LimitError(ErrorCode.LIMIT_SHARE, refused.message, details=refused.details)

    def remove(self, name: str) -> None:
        """Stop counting a view; a no-op if it is not counted."""
        owner, source = self._owners.pop(name, (None, ""))
        if owner is None:
            return
        self._of_node.remove(owner, name)
        of_topic = self._of_topic[source]
        of_topic.remove(owner, name)
        if not of_topic.count:
            del self._of_topic[source]


def _size_of(topic: Topic) -> int:
    view = topic.view
    if not isinstance(view, DepthView):
        return _BARS_BYTES
    return view.depth * _LEVEL_BYTES if view.step is None else _GROUPED_BYTES
