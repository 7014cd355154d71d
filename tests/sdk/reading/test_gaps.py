"""A reader gets every message once and in order, or a gap, through all kinds of failures."""

from hypothesis import given
from hypothesis import strategies as st

from client_sdk import Gap, GapReason
from client_sdk.contract import BookMessage, MarketMessage, Position, PriceMessage, Stream
from client_sdk.reading.gaps import CheckResult, Continuity, GapTracker, continuity_of
from client_sdk.reading.readers import Reader, TopicState
from client_sdk.reading.topic_subscription import TopicSubscription
from client_sdk.stats import Counters
from tests.sdk.reader_rig import TOPIC, ReaderRig, trade


def at(seq: int, epoch: str = "e0") -> Position:
    return Position(epoch=epoch, seq=seq)


def book(epoch: str, seq: int, prev: int, kind: str = "update") -> MarketMessage:
    return BookMessage.model_validate(
        {
            "stream": Stream.ORDERBOOK,
            "symbol": "A",
            "type": kind,
            "epoch": epoch,
            "seq": seq,
            "prev": prev,
            "ts": 0,
            "data": {"bids": [], "asks": []},
        }
    )


def price(epoch: str, seq: int, kind: str = "update") -> MarketMessage:
    data = {"bid": "1", "ask": "1", "last": "1", "volume": "1"}
    return PriceMessage.model_validate(
        {
            "stream": Stream.PRICE,
            "symbol": "A",
            "type": kind,
            "epoch": epoch,
            "seq": seq,
            "prev": seq - 1,
            "ts": 0,
            "data": data,
        }
    )


# --- gap tracker


def test_each_stream_has_its_continuity() -> None:
    assert continuity_of(Stream.PRICE) is Continuity.LATEST
    assert continuity_of(Stream.ORDERBOOK) is Continuity.DELTAS
    assert continuity_of(Stream.TRADES) is continuity_of(Stream.USER_DATA) is Continuity.COMPLETE


def test_complete_stream_accepts_only_the_next_message() -> None:
    tracker = GapTracker(Continuity.COMPLETE, at(5))
    assert tracker.check(trade("e0", 5)) is CheckResult.KNOWN
    assert tracker.check(trade("e0", 6)) is CheckResult.NEXT
    assert tracker.check(trade("e0", 7)) is CheckResult.GAP
    assert tracker.check(trade("e1", 6)) is CheckResult.GAP
    # A snapshot that skips messages hides ones that may still be in the history.
    assert tracker.check(trade("e0", 9, "snapshot", 5)) is CheckResult.GAP
    assert tracker.check(trade("e0", 6, "snapshot", 5)) is CheckResult.NEXT


def test_heartbeat_ahead_is_a_gap() -> None:
    for chain in Continuity:
        tracker = GapTracker(chain, at(5))
        assert tracker.check(trade("e0", 5, "heartbeat", 5)) is CheckResult.KNOWN
        assert tracker.check(trade("e0", 6, "heartbeat", 6)) is CheckResult.GAP
        assert tracker.check(trade("e1", 1, "heartbeat", 1)) is CheckResult.GAP


def test_newer_price_replaces_all_before_it() -> None:
    tracker = GapTracker(Continuity.LATEST, at(5))
    assert tracker.check(price("e0", 5)) is CheckResult.KNOWN
    assert tracker.check(price("e0", 9)) is CheckResult.NEXT
    assert tracker.check(price("e1", 1)) is CheckResult.NEXT


def test_book_deltas_can_overlap_but_not_skip() -> None:
    tracker = GapTracker(Continuity.DELTAS, at(5))
    assert tracker.check(book("e0", 5, 4)) is CheckResult.KNOWN
    assert tracker.check(book("e0", 8, 5)) is CheckResult.NEXT
    assert tracker.check(book("e0", 8, 3)) is CheckResult.NEXT
    assert tracker.check(book("e0", 8, 6)) is CheckResult.GAP
    assert tracker.check(book("e1", 1, 0)) is CheckResult.GAP
    assert tracker.check(book("e1", 1, 0, "snapshot")) is CheckResult.NEXT
    tracker.reset()
    assert tracker.position is None
    assert tracker.check(book("e0", 5, 4, "snapshot")) is CheckResult.NEXT


# --- readers and their subscription


def test_missed_message_is_requested_and_filled_in() -> None:
    rig = ReaderRig()
    reader = rig.add_reader()
    rig.settle()
    rig.publish()
    rig.publish(lost=True)
    rig.publish()
    assert rig.needs_sync()
    assert rig.counters.gaps_seen == 1
    rig.settle()
    assert [seq for _, seq in reader.positions] == [1, 2, 3]
    assert reader.gaps == []


def test_heartbeat_reveals_a_lost_last_message() -> None:
    rig = ReaderRig()
    reader = rig.add_reader()
    rig.settle()
    rig.publish(lost=True)
    assert not rig.needs_sync()
    assert not rig.subscription.receive(rig.topic.heartbeat())
    rig.settle()
    assert reader.positions == [("e0", 1)]


def test_lost_messages_become_a_gap() -> None:
    rig = ReaderRig(history=2)
    reader = rig.add_reader()
    rig.settle()
    rig.publish()
    rig.disconnect()
    for _ in range(4):
        rig.publish()
    rig.settle()
    # The last message comes as a snapshot; the three before it are lost.
    assert reader.gaps == [Gap(TOPIC, "e0", 2, 4, GapReason.HISTORY)]
    assert [seq for _, seq in reader.positions] == [1, 5]
    assert rig.counters.gaps == 1


def test_server_restart_is_an_epoch_gap() -> None:
    rig = ReaderRig()
    reader = rig.add_reader()
    rig.settle()
    rig.publish()
    rig.disconnect()
    rig.topic.restart()
    rig.publish()
    rig.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]
    assert reader.positions == [("e0", 1), ("e1", 1)]


def test_new_epoch_is_read_from_its_first_message() -> None:
    rig = ReaderRig()
    reader = rig.add_reader()
    rig.publish()
    rig.settle()
    rig.disconnect()
    rig.topic.restart()
    for _ in range(4):
        rig.publish()
    rig.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]
    assert reader.positions == [("e0", 1), *(("e1", seq) for seq in range(1, 5))]


def test_messages_lost_from_a_new_epoch_are_a_second_gap() -> None:
    rig = ReaderRig(history=2)
    reader = rig.add_reader(at(3))
    rig.topic.restart()
    rig.topic.seq = 7
    rig.settle()
    assert reader.gaps == [
        Gap(TOPIC, "e0", 4, None, GapReason.EPOCH),
        Gap(TOPIC, "e1", 1, 6, GapReason.HISTORY),
    ]
    assert reader.positions == [("e1", 7)]


def test_server_that_rolled_back_is_an_epoch_gap() -> None:
    rig = ReaderRig()
    reader = rig.add_reader()
    rig.settle()
    for _ in range(4):
        rig.publish()
    rig.settle()
    rig.disconnect()
    rig.topic.seq = 2
    rig.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 5, None, GapReason.EPOCH)]
    rig.publish()
    rig.settle()
    assert reader.positions[-1] == ("e0", 3)


def test_new_epoch_that_continues_numbers_is_read_from_its_start() -> None:
    rig = ReaderRig()
    reader = rig.add_reader()
    rig.settle()
    for _ in range(4):
        rig.publish()
    rig.settle()
    rig.disconnect()
    rig.topic.roll_back(2)
    for _ in range(3):
        rig.publish()
    rig.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 5, None, GapReason.EPOCH)]
    assert reader.positions == [
        *(("e0", seq) for seq in range(1, 5)),
        ("e1", 3),
        ("e1", 4),
        ("e1", 5),
    ]


def test_new_epoch_at_the_last_message_repeats_nothing() -> None:
    rig = ReaderRig()
    reader = rig.add_reader()
    rig.settle()
    for _ in range(4):
        rig.publish()
    rig.settle()
    rig.disconnect()
    rig.topic.roll_back(4)
    rig.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 5, None, GapReason.EPOCH)]
    rig.publish()
    rig.settle()
    assert reader.positions == [*(("e0", seq) for seq in range(1, 5)), ("e1", 5)]
    assert rig.counters.gaps == 1


def test_start_of_an_epoch_is_not_taken_from_a_reply_for_another_reader() -> None:
    rig = ReaderRig(history=10)
    ahead = rig.add_reader()
    for _ in range(3):
        rig.publish()
    rig.settle()
    rig.disconnect()
    rig.send_request()
    behind = rig.add_reader(at(0))
    rig.publish()
    rig.receive_reply()
    rig.settle()
    assert [seq for _, seq in behind.positions] == [1, 2, 3, 4]
    assert [seq for _, seq in ahead.positions] == [3, 4]
    assert behind.gaps == ahead.gaps == []


def test_restart_without_messages_is_one_gap() -> None:
    rig = ReaderRig()
    reader = rig.add_reader()
    rig.publish()
    rig.settle()
    for _ in range(2):
        rig.disconnect()
        rig.topic.restart()
        rig.settle()
    assert [(gap.epoch, gap.missed_from) for gap in reader.gaps] == [("e0", 2), ("e1", 1)]
    rig.publish()
    rig.settle()
    assert reader.positions == [("e0", 1), ("e2", 1)]


def test_full_reader_gets_the_rest_after_reading() -> None:
    rig = ReaderRig(history=10, capacity=4)
    reader = rig.add_reader()
    rig.settle()
    for _ in range(8):
        rig.publish()
    assert reader.reader.is_behind(TOPIC)
    assert not rig.needs_sync(), "there is no space for a reply yet"
    reader.read(1)
    assert not rig.needs_sync()
    reader.read(1)
    assert rig.needs_sync()
    rig.settle()
    assert [seq for _, seq in reader.positions] == list(range(1, 9))
    assert reader.gaps == []


def test_slow_reader_does_not_affect_another() -> None:
    rig = ReaderRig(history=3, capacity=4)
    slow, fast = rig.add_reader(), rig.add_reader()
    rig.settle()
    for _ in range(12):
        rig.publish()
        fast.read(1)
    assert [seq for _, seq in fast.positions] == list(range(1, 13))
    rig.publish(lost=True)
    rig.publish()
    # The request is made for the fast reader only, so the slow one gets no gap yet.
    rig.send_request()
    rig.receive_reply()
    fast.read(9)
    assert [seq for _, seq in fast.positions] == list(range(1, 15))
    assert fast.gaps == []
    rig.settle()
    assert slow.gaps == [Gap(TOPIC, "e0", 5, 13, GapReason.HISTORY)]
    assert [seq for _, seq in slow.positions] == [1, 2, 3, 4, 14]


def test_reader_that_gains_space_during_a_request_is_next() -> None:
    rig = ReaderRig(history=20, capacity=4)
    slow, fast = rig.add_reader(), rig.add_reader()
    rig.settle()
    for _ in range(6):
        rig.publish()
        fast.read(1)
    rig.publish(lost=True)
    rig.publish()
    rig.send_request()
    slow.read(4)
    rig.receive_reply()
    assert rig.needs_sync()
    rig.settle()
    assert [seq for _, seq in slow.positions] == list(range(1, 9))


def test_blocked_reader_triggers_no_request() -> None:
    rig = ReaderRig(history=2, capacity=4)
    slow = rig.add_reader()
    rig.settle()
    for _ in range(6):
        rig.publish()
    slow.read(1)
    rig.disconnect()
    for _ in range(5):
        rig.publish()
    rig.send_request()
    rig.receive_reply()
    assert not rig.needs_sync()
    rig.settle()
    assert [seq for _, seq in slow.positions] == [1, 2, 3, 4, 11]
    assert [(gap.missed_from, gap.missed_to) for gap in slow.gaps] == [(5, 10)]


def test_full_reader_gets_one_gap_for_several_restarts() -> None:
    rig = ReaderRig(capacity=1)
    reader = rig.add_reader()
    rig.settle()
    rig.publish()
    for _ in range(5):
        rig.disconnect()
        rig.topic.restart()
        rig.send_request()
        rig.receive_reply()
    rig.settle()
    assert reader.positions == [("e0", 1)]
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]


def test_shared_reply_with_a_gap_for_one_reader_only() -> None:
    rig = ReaderRig(history=3, capacity=10)
    old, recent = rig.add_reader(at(1)), rig.add_reader(at(8))
    rig.topic.seq = 10
    rig.settle()
    assert recent.gaps == []
    assert [seq for _, seq in recent.positions] == [9, 10]
    assert old.gaps == [Gap(TOPIC, "e0", 2, 9, GapReason.HISTORY)]


def test_state_too_large_for_a_shared_reply_gets_its_own_request() -> None:
    rig = ReaderRig(history=3)
    reader = rig.add_reader(at(1))
    rig.topic.seq = 10
    rig.send_request()
    rig.receive_reply(shared=True)
    assert rig.subscription.needs_own_request
    assert reader.gaps == []
    rig.settle()
    assert len(reader.gaps) == 1


def test_later_reader_starts_at_the_current_position() -> None:
    rig = ReaderRig()
    early = rig.add_reader()
    rig.settle()
    rig.publish()
    late = rig.add_reader()
    rig.settle()
    rig.publish()
    rig.settle()
    assert [seq for _, seq in early.positions] == [1, 2]
    assert [seq for _, seq in late.positions] == [2]


operations = st.one_of(
    st.just(("publish", 0)),
    st.just(("publish", 0)),
    st.just(("lose", 0)),
    st.just(("cut", 0)),
    st.just(("restart", 0)),
    st.just(("heartbeat", 0)),
    st.just(("ask", 0)),
    st.just(("answer", 0)),
    st.tuples(st.just("read"), st.integers(0, 1)),
)


@given(st.lists(operations, max_size=60), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3))
def test_every_message_comes_once_in_order_or_as_a_gap(
    steps: list[tuple[str, int]], history: int, capacity: int, read_at_once: int
) -> None:
    rig = ReaderRig(history=history, capacity=capacity)
    readers = [rig.add_reader(), rig.add_reader()]
    rig.settle()
    published: dict[str, int] = {"e0": 0}
    for step, reader in steps:
        if step == "publish" or step == "lose":
            rig.publish(lost=step == "lose")
        elif step == "cut":
            rig.disconnect()
        elif step == "restart":
            rig.disconnect()
            rig.topic.restart()
        elif step == "heartbeat" and rig.subscribed:
            rig.subscription.receive(rig.topic.heartbeat())
        elif step == "ask":
            rig.send_request()
        elif step == "answer":
            rig.receive_reply()
        elif step == "read":
            readers[reader].read(read_at_once)
        published[rig.topic.epoch] = rig.topic.seq
    if rig.connected:
        # The next heartbeat reveals a lost last message.
        rig.send_request()
        rig.receive_reply()
        rig.subscription.receive(rig.topic.heartbeat())
    rig.settle()
    rig.settle()
    for each in readers:
        assert each.positions == sorted(set(each.positions)), "each once and in order"
        for epoch, last in published.items():
            for seq in range(1, last + 1):
                received = (epoch, seq) in each.positions
                missing = each.reports_missing(epoch, seq)
                covered = _whole_epoch_is_covered(each.gaps, epoch)
                assert received != missing or (not received and covered), (epoch, seq, each)


def test_reader_added_during_a_request_gets_a_snapshot() -> None:
    subscription: TopicSubscription[MarketMessage] = TopicSubscription(
        "PRICE:A", Continuity.LATEST, Counters()
    )
    early, late = (Reader[MarketMessage](4, Counters(), on_space=lambda _: None) for _ in "ab")
    subscription.add(early)
    subscription.begin_sync()
    state = TopicState("e0", 1, False, price("e0", 1, "snapshot"), ())
    assert subscription.apply_state(state, shared=False)
    subscription.on_disconnect()
    assert subscription.begin_sync() == at(1)
    subscription.add(late)
    # Nothing is new for the reader that the request was made for.
    subscription.apply_state(TopicState("e0", 1, True, None, ()), shared=False)
    assert not late.is_ready
    assert subscription.needs_sync
    assert subscription.begin_sync() is None
    subscription.apply_state(state, shared=False)
    assert (late.take(), late.is_ready) == (state.snapshot, True)
    early.take()
    assert early.take() is None


def _whole_epoch_is_covered(gaps: list[Gap], epoch: str) -> bool:
    """True if the gap after an earlier epoch covers this whole epoch."""
    return any(gap.reason is GapReason.EPOCH and gap.epoch < epoch for gap in gaps)
