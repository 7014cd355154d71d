"""Models what a client knows from the messages that it received."""

from typing import Any

from tests.kit.checksum import checksum
from tests.kit.network.links import RecordingLink

KEPT = ("TRADES", "USER_DATA", "ORDER_UPDATES")


class SubscriptionModel:
    """One subscription as its client sees it; asserts what the contract guarantees."""

    def __init__(self, topic: str, reply: dict[str, Any]) -> None:
        self.topic = topic
        self.stream = topic.partition(":")[0]
        self.epoch = reply["epoch"]
        self.seq = reply["seq"]
        self.value: object = None
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}
        self.checksum: int | None = None
        self.loss_count = 0
        # After a resume the server may not know the client's seq: it may send a snapshot with
        # another `prev`.
        self.is_resumed = False
        if reply["snapshot"] is not None:
            assert reply["snapshot"]["seq"] == self.seq
            self._snapshot(reply["snapshot"]["data"])

    def resume(self, reply: dict[str, Any]) -> "SubscriptionModel":
        """The subscription after a reply to a subscribe with this position."""
        if not reply["recovered"]:
            assert self.stream in KEPT, "a merged stream did not recover"
            return SubscriptionModel(self.topic, reply)
        assert reply["epoch"] == self.epoch
        if self.stream in KEPT:
            assert reply["snapshot"] is None
            for message in reply["missed"]:
                assert (message["prev"], message["seq"]) == (self.seq, self.seq + 1)
                self.seq += 1
                self._update(message["data"])
            assert self.seq == reply["seq"], "a missed message is absent from the reply"
        elif reply["snapshot"] is None:
            # Nothing was missed, or the snapshot comes as a message.
            self.seq = reply["seq"]
        else:
            return SubscriptionModel(self.topic, reply)
        return self

    def receive(self, message: dict[str, Any], now_ms: int, times: list[int]) -> None:
        """Apply a message received now; `times` are the publish times by seq."""
        assert message["epoch"] == self.epoch
        was_resumed, self.is_resumed = self.is_resumed, False
        if was_resumed and message["type"] == "snapshot" and self.stream not in KEPT:
            assert message["seq"] >= self.seq
            self._snapshot(message["data"])
            self.seq = message["seq"]
            return
        assert message["prev"] == self.seq, (message, self.seq)
        if message["type"] == "heartbeat":
            assert message["seq"] == self.seq
            return
        updates = message["seq"] - message["prev"]
        assert updates >= 0
        if message["type"] == "snapshot":
            if self.stream in KEPT:
                self.loss_count += 1
            self._snapshot(message["data"])
        else:
            assert updates >= 1
            assert self.stream not in KEPT or updates == 1, "a kept message was skipped"
            self._update(message["data"])
        assert message.get("merged", 1) == max(1, updates if self.stream not in KEPT else 1)
        assert ("age_ms" in message) == ("merged" in message)
        if "merged" in message:
            assert message["age_ms"] == now_ms - times[message["prev"]]
        self.seq = message["seq"]

    def _snapshot(self, data: dict[str, Any]) -> None:
        if self.stream == "ORDERBOOK":
            self.bids, self.asks = {}, {}
        self._update(data)

    def _update(self, data: dict[str, Any]) -> None:
        if self.stream != "ORDERBOOK":
            self.value = data
            return
        for side, levels in ((self.bids, data["bids"]), (self.asks, data["asks"])):
            for price, quantity in levels:
                if quantity == "0":
                    side.pop(price, None)
                else:
                    side[price] = quantity
        assert checksum(self.bids, self.asks) == data["checksum"]


class ClientModel:
    """A client behind a recording link, with a model of each subscription."""

    def __init__(self, link: RecordingLink) -> None:
        self.link = link
        self.subscriptions: dict[str, SubscriptionModel] = {}
        self.stale: dict[str, bool] = {}
        self._received = 0

    def receive(self, now_ms: int, times: dict[str, list[int]]) -> None:
        """Apply the events sent since the last call."""
        events = self.link.events()
        for event, body in events[self._received :]:
            topic = body["stream"] + (f":{body['symbol']}" if body["symbol"] else "")
            if event == "status":
                self.stale[topic] = body["state"] == "STALE"
                continue
            assert event == body["stream"].lower()
            assert topic in self.subscriptions, f"a message of {topic} without a subscription"
            self.subscriptions[topic].receive(body, now_ms, times[topic])
        self._received = len(events)
