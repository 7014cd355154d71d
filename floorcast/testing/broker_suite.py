"""The suite that every broker must pass: positions, history, claims and delivery."""

import asyncio
import logging
from collections.abc import Iterable

import orjson
import pytest

from floorcast.testing.brokers import Bounds, BrokerCluster, BrokerNode
from floorcast.testing.clock import ManualClock
from server.core.errors import FloorcastError, RequestError, WriteConflict
from server.core.log.entries import Entry, Position, Receipt
from server.core.log.idempotency import Claim


class BrokerSuite:
    """Subclass it, and add a fixture `cluster` that returns a `BrokerCluster` of your broker.

    It needs pytest-asyncio in its auto mode. Example:

        class TestMyBroker(BrokerSuite):
            @pytest.fixture
            def cluster(self) -> MyCluster:
                return MyCluster()
    """

    async def test_positions_count_from_1_for_each_channel(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            head = await node.broker.head("A")
            assert head.seq == 0
            assert await node.broker.latest("A") is None
            receipts = [await node.broker.publish("A", b"{}", 5) for _ in range(2)]
            assert receipts == [
                Receipt(Position(head.epoch, 1), 5),
                Receipt(Position(head.epoch, 2), 5),
            ], "the epoch returned before the first message holds"
            other = await node.broker.publish("B", b'{"b":1}', 6)
            assert (other.position.seq, other.ts_ms) == (1, 6)
            assert await node.broker.head("A") == Position(head.epoch, 2)
            assert await node.broker.latest("B") == Entry("B", other.position, 6, b'{"b":1}')

    async def test_broker_delivers_only_watched_channels_in_order(
        self,
        cluster: BrokerCluster,
    ) -> None:
        async with cluster.running() as node:
            await node.broker.watch("A")
            for channel in ("A", "B", "A"):
                await publish(node, channel)
            await node.wait_for_entries(2)
            await node.broker.unwatch("A")
            await node.broker.unwatch("nothing")
            await publish(node, "A")
            await node.broker.watch("last")
            await publish(node, "last")
            await node.wait_for_entries(3)
            assert [(each.channel, each.position.seq) for each in node.entries] == [
                ("A", 1),
                ("A", 2),
                ("last", 1),
            ]
            assert node.resets == []

    async def test_delivered_entry_equals_the_published_one(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            name = "USER_DATA@3:org:a{b}%\u00fc\n"
            data = orjson.dumps({"text": '"}{', "deep": [[{}]], "more": "\u00e9\u2028"})
            await node.broker.watch(name)
            receipt = await node.broker.publish(name, data, 17, kind="snapshot", in_history=True)
            [entry] = await node.wait_for_entries(1)
            assert entry == Entry(name, receipt.position, 17, data, "snapshot")
            assert await node.broker.latest(name) == entry
            assert await node.broker.before(name, None, 5) == [entry]

    async def test_watch_delivers_every_later_entry(
        self,
        cluster: BrokerCluster,
    ) -> None:
        async with cluster.running() as node:
            await publish(node)
            await node.broker.watch("A")
            await publish(node)
            assert (await node.broker.head("A")).seq == 2
            await node.wait_until(lambda: node.seqs() == [2])

    async def test_last_of_overlapping_watch_calls_wins(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            await node.broker.watch("A")
            await asyncio.gather(node.broker.unwatch("A"), node.broker.watch("A"))
            await publish(node, "A")
            await node.wait_until(lambda: node.seqs() == [1])
            await asyncio.gather(
                node.broker.unwatch("A"), node.broker.watch("A"), node.broker.unwatch("A")
            )
            await publish(node, "A")
            await node.broker.watch("last")
            await publish(node, "last")
            await node.wait_until(lambda: node.seqs("last") == [1])
            assert node.seqs() == [1]

    async def test_concurrent_publishes_get_distinct_positions(
        self, cluster: BrokerCluster
    ) -> None:
        async with cluster.running() as node:
            await node.broker.watch("A")
            receipts = await asyncio.gather(*(publish(node, "A", n) for n in range(500)))
            assert [each.position.seq for each in receipts] == list(range(1, 501)), "in their order"
            await node.wait_for_entries(500)
            assert node.seqs() == list(range(1, 501))
            assert [orjson.loads(each.data)["n"] for each in node.entries] == list(range(500))

    async def test_stopped_broker_rejects_publishes(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            await node.broker.watch("A")
            await node.broker.stop()
            with pytest.raises(FloorcastError, match="stopped") as refused:
                await publish(node)
            assert refused.value.code == "server.draining"
            assert node.entries == []

    async def test_restarted_broker_keeps_published_entries(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            await node.broker.watch("A")
            first = await publish(node)
            await node.wait_for_entries(1)
            await node.broker.stop()
            await node.start()
            # The restart cleared the watched channels.
            second = await publish(node)
            assert second.position == Position(first.position.epoch, 2)
            await node.broker.watch("last")
            await publish(node, "last")
            await node.wait_until(lambda: node.seqs("last") == [1])
            assert node.seqs() == [1]

    async def test_failing_delivery_does_not_fail_the_publish(
        self, cluster: BrokerCluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        delivered: list[int] = []

        def deliver(entry: Entry) -> None:
            if entry.position.seq < 3:
                raise RuntimeError(f"cannot take {entry.data!r}")
            delivered.append(entry.position.seq)

        node = cluster.create_node()
        await node.broker.start(deliver, on_state=node.states.append)
        try:
            await node.wait_until(lambda: bool(node.states))
            await node.broker.watch("A")
            with caplog.at_level(logging.ERROR):
                receipts = [await node.broker.publish("A", b'{"a":"secret"}', 1) for _ in range(3)]
                await node.wait_until(lambda: delivered == [3])
        finally:
            await node.broker.stop()
        assert [each.position.seq for each in receipts] == [1, 2, 3]
        assert len(caplog.records) == 1
        assert "secret" not in caplog.text

    async def test_since_returns_all_missed_entries_or_none(self, cluster: BrokerCluster) -> None:
        async with cluster.running(Bounds(seconds=10.0)) as node:
            broker, clock = node.broker, cluster.clock
            epoch = await publish_three(node, clock)
            assert seqs(await broker.since("A", Position(epoch, 0))) == [1, 2, 3]
            assert seqs(await broker.since("A", Position(epoch, 1))) == [2, 3]
            assert await broker.since("A", Position(epoch, 3)) == []
            assert await broker.since("A", Position(epoch, 4)) is None, "no client can be ahead"
            assert await broker.since("A", Position("e0", 3)) is None, "that history is lost"
            assert await broker.since("A", Position("e0", 0)) is None, "and so is its beginning"
            head = await broker.head("B")
            assert await broker.since("B", head) == []
            await broker.publish("B", b"{}", 1)
            assert await broker.since("B", head) is None, "it was not in the history"
            clock.advance(8.5)
            assert await broker.since("A", Position(epoch, 0)) is None, "the first is too old"
            assert seqs(await broker.since("A", Position(epoch, 1))) == [2, 3]
            clock.advance(100)
            assert seqs(await broker.since("A", Position(epoch, 2))) == [3], "the newest stays"

    async def test_since_returns_only_delivered_entries(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            await node.broker.watch("A")
            start = await node.broker.head("A")
            now = now_ms(cluster.clock)
            for number in range(50):
                asked = [publish(node, "A", number, now), node.broker.since("A", start)]
                _, missed = await asyncio.gather(*asked)
                assert isinstance(missed, list)
                assert node.seqs()[: len(missed)] == seqs(missed)

    async def test_history_is_bounded_by_count_and_bytes(self, cluster: BrokerCluster) -> None:
        async with cluster.running(Bounds(messages=5, bytes=4000)) as node:
            now = now_ms(cluster.clock)
            for number in range(12):
                epoch = (await publish(node, "A", number, now)).position.epoch
            assert await node.broker.since("A", Position(epoch, 6)) is None
            assert seqs(await node.broker.since("A", Position(epoch, 7))) == [8, 9, 10, 11, 12]
            assert seqs(await node.broker.before("A", None, 100)) == [8, 9, 10, 11, 12]
            for _ in range(4):
                await node.broker.publish("A", b'{"x":"%b"}' % (b"x" * 1500), now, in_history=True)
            assert await node.broker.since("A", Position(epoch, 13)) is None
            assert seqs(await node.broker.since("A", Position(epoch, 14))) == [15, 16]
            await node.broker.publish("A", b'{"x":"%b"}' % (b"x" * 9000), now, in_history=True)
            assert seqs(await node.broker.before("A", None, 100)) == [17], "the newest always stays"

    async def test_publish_drops_expired_entries(self, cluster: BrokerCluster) -> None:
        async with cluster.running(Bounds(seconds=10.0)) as node:
            epoch = await publish_three(node, cluster.clock)
            cluster.clock.advance(8.5)
            await publish(node, "A", 4, now_ms(cluster.clock))
            assert await node.broker.since("A", Position(epoch, 0)) is None
            assert seqs(await node.broker.since("A", Position(epoch, 1))) == [2, 3, 4]

    async def test_before_reads_history_in_pages(self, cluster: BrokerCluster) -> None:
        async with cluster.running(Bounds(seconds=10.0)) as node:
            await publish_three(node, cluster.clock)
            assert seqs(await node.broker.before("A", None, 2)) == [2, 3]
            assert seqs(await node.broker.before("A", 2, 5)) == [1]
            assert await node.broker.before("A", 1, 5) == []
            assert await node.broker.before("A", 0, 5) == []
            assert await node.broker.before("A", None, 0) == []
            assert await node.broker.before("B", None, 5) == []
            cluster.clock.advance(8.5)
            assert seqs(await node.broker.before("A", None, 5)) == [2, 3]
            cluster.clock.advance(100)
            assert seqs(await node.broker.before("A", None, 5)) == [3]

    async def test_forgotten_channel_restarts_with_a_new_epoch(
        self,
        cluster: BrokerCluster,
    ) -> None:
        async with cluster.running() as node:
            epoch = await publish_three(node, cluster.clock)
            await node.broker.watch("B")
            head = await node.broker.head("B")
            await node.broker.forget("A")
            assert await node.broker.before("A", None, 5) == []
            assert await node.broker.latest("A") is None
            again = (await publish(node)).position
            assert again.seq == 1
            assert again.epoch != epoch
            assert await node.broker.since("A", Position(epoch, 1)) is None
            first = (await publish(node, "B")).position
            assert first.epoch == head.epoch, "the head returned before still holds"

    async def test_forget_keeps_a_watched_channel(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            await node.broker.watch("A")
            await publish(node)
            await node.broker.forget("A")
            assert (await publish(node)).position.seq == 2

    async def test_forget_of_a_silent_channel_keeps_younger_ones(
        self, cluster: BrokerCluster
    ) -> None:
        async with cluster.running() as node:
            broker = node.broker
            await publish(node, "A", ts_ms=10)
            assert not await broker.forget("A", silent_since_ms=9)
            assert (await publish(node, "A", ts_ms=20)).position.seq == 2
            assert await broker.forget("A", silent_since_ms=20)
            assert await broker.latest("A") is None
            assert await broker.forget("unknown", silent_since_ms=0)

    async def test_retry_returns_the_first_receipt_and_delivers_once(
        self, cluster: BrokerCluster
    ) -> None:
        async with cluster.running() as node:
            broker = node.broker
            await broker.watch("A")
            claim = Claim("A\0ann\0id", b"digest")
            assert await broker.find("A", claim) is None
            first = await broker.publish("A", b"{}", 5, claim=claim)
            assert await broker.publish("A", b"{}", 9, claim=claim) == first, "its time too"
            assert await broker.find("A", claim) == first
            together = await asyncio.gather(
                *(broker.publish("A", b"{}", 9, claim=Claim("other", b"d")) for _ in range(3))
            )
            assert {each.position.seq for each in together} == {2}
            await broker.publish("A", b"{}", 10)
            await node.wait_for_entries(3)
            assert node.seqs() == [1, 2, 3]

    async def test_claim_with_another_message_is_refused(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            await node.broker.publish("A", b"{}", 5, claim=Claim("id", b"one"))
            for attempt in (
                node.broker.publish("A", b"{}", 5, claim=Claim("id", b"two")),
                node.broker.find("A", Claim("id", b"two")),
            ):
                with pytest.raises(RequestError) as refused:
                    await attempt
                assert refused.value.code == "publish.conflict"
            assert (await node.broker.head("A")).seq == 1

    async def test_claim_expires_with_its_window(self, cluster: BrokerCluster) -> None:
        async with cluster.running(Bounds(idempotency_seconds=0.02)) as node:
            claim = Claim("id", b"one")
            await node.broker.publish("A", b"{}", 5, claim=claim)
            await cluster.pass_time(0.03)
            assert await node.broker.find("A", claim) is None
            assert (await node.broker.publish("A", b"{}", 5, claim=claim)).position.seq == 2

    async def test_publish_with_a_wrong_expected_head_is_refused(
        self,
        cluster: BrokerCluster,
    ) -> None:
        async with cluster.running() as node:
            broker = node.broker
            head = await broker.head("A")
            first = await broker.publish("A", b"{}", 1, expected_head=head)
            with pytest.raises(WriteConflict):
                await broker.publish("A", b"{}", 1, expected_head=head)
            with pytest.raises(WriteConflict):
                await broker.publish("A", b"{}", 1, expected_head=Position("e0", 1))
            assert await broker.head("A") == first.position
            assert (
                await broker.publish("A", b"{}", 1, expected_head=first.position)
            ).position.seq == 2

    async def test_retry_ignores_the_expected_head(self, cluster: BrokerCluster) -> None:
        async with cluster.running() as node:
            head, claim = await node.broker.head("A"), Claim("id", b"one")
            first = await node.broker.publish("A", b"{}", 1, expected_head=head, claim=claim)
            assert (
                await node.broker.publish("A", b"{}", 1, expected_head=head, claim=claim) == first
            )

    async def test_latest_of_updates_has_the_full_state(
        self,
        cluster: BrokerCluster,
    ) -> None:
        async with cluster.running() as node:
            ladder = BidBook()
            for number in range(1, 151):
                change = ladder.change(number % 40 + 1, number % 7)
                receipt = await node.broker.publish(
                    "A", change, number, full_state=ladder.full_state
                )
                if number in (1, 2, 64, 65, 66, 150):
                    latest = await node.broker.latest("A")
                    assert latest is not None
                    assert (latest.position, latest.ts_ms) == (receipt.position, number)
                    assert latest.kind == "snapshot" or number == 1
                    latest_book, known = (
                        orjson.loads(latest.data),
                        orjson.loads(ladder.full_state()),
                    )
                    assert latest_book["bids"] == known["bids"]

    async def test_latest_returns_a_published_snapshot_unchanged(
        self,
        cluster: BrokerCluster,
    ) -> None:
        async with cluster.running() as node:
            ladder = BidBook()
            await node.broker.publish("A", ladder.change(5, 5), 1, full_state=ladder.full_state)
            ladder.bids = {"3": "1"}
            whole = ladder.full_state()
            await node.broker.publish("A", whole, 2, kind="snapshot", full_state=ladder.full_state)
            latest = await node.broker.latest("A")
            assert latest is not None
            assert (latest.data, latest.kind, latest.position.seq) == (whole, "snapshot", 2)


async def publish(node: BrokerNode, channel: str = "A", number: int = 0, ts_ms: int = 1) -> Receipt:
    """Publish one message into the history."""
    return await node.broker.publish(channel, b'{"n":%d}' % number, ts_ms, in_history=True)


def seqs(entries: Iterable[Entry] | None) -> list[int]:
    assert entries is not None
    return [each.position.seq for each in entries]


def now_ms(clock: ManualClock) -> int:
    return int(clock.time() * 1000)


async def publish_three(node: BrokerNode, clock: ManualClock) -> str:
    """Publish three messages to A, a second apart; returns their epoch."""
    for number in range(3):
        clock.advance(1.0)
        receipt = await publish(node, "A", number, now_ms(clock))
    return receipt.position.epoch


class BidBook:
    """A book of bids with its publisher's current state."""

    def __init__(self) -> None:
        self.bids: dict[str, str] = {}

    def change(self, price: int, quantity: int) -> bytes:
        """Set one level; returns the update message."""
        self.bids[str(price)] = str(quantity)
        if not quantity:
            del self.bids[str(price)]
        return self._encode([[str(price), str(quantity)]])

    def full_state(self) -> bytes:
        best_first = sorted(self.bids.items(), key=lambda level: -int(level[0]))
        return self._encode([list(level) for level in best_first])

    def _encode(self, bids: list[list[str]]) -> bytes:
        return orjson.dumps({"bids": bids, "asks": [], "checksum": 1})
