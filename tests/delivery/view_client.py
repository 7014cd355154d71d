"""Models a client of views: what it knows after each message must be the view at that position."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from tests.kit.checksum import checksum
from tests.kit.network.links import RecordingLink

Side = dict[str, str]


def expected_levels(side: Side, view: str, *, is_bids: bool) -> Side:
    """The levels of one side of a view, computed the simple way; quantities as plain text."""
    depth, _, step = view.partition("/")
    groups: dict[Decimal, Decimal] = {}
    for price, quantity in side.items():
        number = Decimal(price)
        if step:
            rounding = ROUND_FLOOR if is_bids else ROUND_CEILING
            number = (number / Decimal(step)).to_integral_value(rounding) * Decimal(step)
        groups[number] = groups.get(number, Decimal(0)) + Decimal(quantity)
    best = sorted(groups, reverse=is_bids)[: int(depth)]
    if step:
        return {_text(each): _text(groups[each]) for each in best}
    texts = {Decimal(price): (price, quantity) for price, quantity in side.items()}
    return dict(texts[each] for each in best)


def _text(number: Decimal) -> str:
    return format(number.normalize(), "f")


class ViewModel:
    """One subscription to a view of a book."""

    def __init__(self, topic: str, reply: dict[str, Any]) -> None:
        self.source, _, self.view = topic.partition("@")
        self.epoch, self.seq = reply["epoch"], reply["seq"]
        self.is_resynced = False
        self.bids: Side = {}
        self.asks: Side = {}
        if reply["snapshot"] is not None:
            assert reply["snapshot"]["seq"] == self.seq
            assert reply["snapshot"]["view"] == self.view
            self._apply(reply["snapshot"]["data"])

    def receive(self, message: dict[str, Any]) -> None:
        """Apply a message."""
        assert message["epoch"] == self.epoch
        was_resynced, self.is_resynced = self.is_resynced, False
        assert message["prev"] == self.seq or was_resynced, (message, self.seq)
        if message["type"] == "heartbeat":
            assert message["seq"] == self.seq
            return
        # Also of an update without a change, which nobody gets twice.
        assert message["seq"] > self.seq or message["type"] == "snapshot"
        if message["type"] == "snapshot":
            self.bids, self.asks = {}, {}
        self._apply(message["data"])
        self.seq = message["seq"]

    def _apply(self, data: dict[str, Any]) -> None:
        for side, levels in ((self.bids, data["bids"]), (self.asks, data["asks"])):
            for price, quantity in levels:
                if quantity == "0":
                    side.pop(price, None)
                else:
                    side[price] = quantity
        assert checksum(self.bids, self.asks) == data["checksum"]


class ViewClient:
    """A client behind a recording link, with a model of each view."""

    def __init__(self, link: RecordingLink) -> None:
        self.link = link
        self.views: dict[str, ViewModel] = {}
        self.stale: dict[str, str] = {}
        self._received = 0

    def receive(self, books: dict[str, list[tuple[Side, Side]]]) -> None:
        """Apply the events sent since the last call; `books` are the books at each position."""
        events = self.link.events()
        for event, body in events[self._received :]:
            topic = f"{body['stream']}:{body['symbol']}@{body['view']}"
            if event == "status":
                self.stale[topic] = body["state"]
                if body["state"] == "RESYNC":
                    self.views[topic].is_resynced = True
                continue
            view = self.views[topic]
            view.receive(body)
            self.check(topic, books[view.source][view.seq])
        self._received = len(events)

    def check(self, topic: str, book: tuple[Side, Side]) -> None:
        """The client's levels are those of the view of this book."""
        view = self.views[topic]
        bids = expected_levels(book[0], view.view, is_bids=True)
        asks = expected_levels(book[1], view.view, is_bids=False)
        assert (view.bids, view.asks) == (bids, asks), (topic, view.seq)
