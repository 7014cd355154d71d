"""Exactly once, in order, or told: whatever the connection, the server and the reader do."""

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


# --- one track


def test_each_stream_has_its_continuity() -> None:
    assert continuity_of(Stream.PRICE) is Continuity.LATEST
    assert continuity_of(Stream.ORDERBOOK) is Continuity.DELTAS
    assert continuity_of(Stream.TRADES) is continuity_of(Stream.USER_DATA) is Continuity.COMPLETE


def test_complete_stream_accepts_only_the_next_message() -> None:
    track = GapTracker(Continuity.COMPLETE, at(5))
    assert track.check(trade("e0", 5)) is CheckResult.KNOWN
    assert track.check(trade("e0", 6)) is CheckResult.NEXT
    assert track.check(trade("e0", 7)) is CheckResult.GAP
    assert track.check(trade("e1", 6)) is CheckResult.GAP
    # A snapshot that jumps stands for others, which may be had yet.
    assert track.check(trade("e0", 9, "snapshot", 5)) is CheckResult.GAP
    assert track.check(trade("e0", 6, "snapshot", 5)) is CheckResult.NEXT


def test_heartbeat_ahead_is_a_gap() -> None:
    for chain in Continuity:
        track = GapTracker(chain, at(5))
        assert track.check(trade("e0", 5, "heartbeat", 5)) is CheckResult.KNOWN
        assert track.check(trade("e0", 6, "heartbeat", 6)) is CheckResult.GAP
        assert track.check(trade("e1", 1, "heartbeat", 1)) is CheckResult.GAP


def test_newer_price_replaces_all_before_it() -> None:
    track = GapTracker(Continuity.LATEST, at(5))
    assert track.check(price("e0", 5)) is CheckResult.KNOWN
    assert track.check(price("e0", 9)) is CheckResult.NEXT
    assert track.check(price("e1", 1)) is CheckResult.NEXT


def test_book_deltas_can_overlap_but_not_skip() -> None:
    track = GapTracker(Continuity.DELTAS, at(5))
    assert track.check(book("e0", 5, 4)) is CheckResult.KNOWN
    assert track.check(book("e0", 8, 5)) is CheckResult.NEXT
    assert track.check(book("e0", 8, 3)) is CheckResult.NEXT
    assert track.check(book("e0", 8, 6)) is CheckResult.GAP
    assert track.check(book("e1", 1, 0)) is CheckResult.GAP
    assert track.check(book("e1", 1, 0, "snapshot")) is CheckResult.NEXT
    track.reset()
    assert track.position is None
    assert track.check(book("e0", 5, 4, "snapshot")) is CheckResult.NEXT


# --- a reader


def test_missed_message_is_requested_and_filled_in() -> None:
    desk = ReaderRig()
    reader = desk.add_reader()
    desk.settle()
    desk.publish()
    desk.publish(lost=True)
    desk.publish()
    assert desk.needs_sync()
    assert desk.counters.gaps_seen == 1
    desk.settle()
    assert [seq for _, seq in reader.positions] == [1, 2, 3]
    assert reader.gaps == []


def test_heartbeat_reveals_a_lost_last_message() -> None:
    desk = ReaderRig()
    reader = desk.add_reader()
    desk.settle()
    desk.publish(lost=True)
    assert not desk.needs_sync()
    assert not desk.subscription.receive(desk.topic.heartbeat())
    desk.settle()
    assert reader.positions == [("e0", 1)]


def test_lost_messages_become_a_gap() -> None:
    desk = ReaderRig(history=2)
    reader = desk.add_reader()
    desk.settle()
    desk.publish()
    desk.disconnect()
    for _ in range(4):
        desk.publish()
    desk.settle()
    # The last is there as a snapshot; the three before it are gone.
    assert reader.gaps == [Gap(TOPIC, "e0", 2, 4, GapReason.HISTORY)]
    assert [seq for _, seq in reader.positions] == [1, 5]
    assert desk.counters.gaps == 1


def test_server_restart_is_an_epoch_gap() -> None:
    desk = ReaderRig()
    reader = desk.add_reader()
    desk.settle()
    desk.publish()
    desk.disconnect()
    desk.topic.restart()
    desk.publish()
    desk.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]
    assert reader.positions == [("e0", 1), ("e1", 1)]


def test_new_epoch_is_read_from_its_first_message() -> None:
    desk = ReaderRig()
    reader = desk.add_reader()
    desk.publish()
    desk.settle()
    desk.disconnect()
    desk.topic.restart()
    for _ in range(4):
        desk.publish()
    desk.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]
    assert reader.positions == [("e0", 1), *(("e1", seq) for seq in range(1, 5))]


def test_messages_lost_from_a_new_epoch_are_a_second_gap() -> None:
    desk = ReaderRig(history=2)
    reader = desk.add_reader(at(3))
    desk.topic.restart()
    desk.topic.seq = 7
    desk.settle()
    assert reader.gaps == [
        Gap(TOPIC, "e0", 4, None, GapReason.EPOCH),
        Gap(TOPIC, "e1", 1, 6, GapReason.HISTORY),
    ]
    assert reader.positions == [("e1", 7)]


def test_server_that_rolled_back_is_an_epoch_gap() -> None:
    desk = ReaderRig()
    reader = desk.add_reader()
    desk.settle()
    for _ in range(4):
        desk.publish()
    desk.settle()
    desk.disconnect()
    desk.topic.seq = 2
    desk.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 5, None, GapReason.EPOCH)]
    desk.publish()
    desk.settle()
    assert reader.positions[-1] == ("e0", 3)


def test_new_epoch_that_continues_numbers_is_read_from_its_start() -> None:
    desk = ReaderRig()
    reader = desk.add_reader()
    desk.settle()
    for _ in range(4):
        desk.publish()
    desk.settle()
    desk.disconnect()
    desk.topic.roll_back(2)
    for _ in range(3):
        desk.publish()
    desk.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 5, None, GapReason.EPOCH)]
    assert reader.positions == [
        *(("e0", seq) for seq in range(1, 5)),
        ("e1", 3),
        ("e1", 4),
        ("e1", 5),
    ]


def test_restart_without_messages_is_one_gap() -> None:
    desk = ReaderRig()
    reader = desk.add_reader()
    desk.publish()
    desk.settle()
    for _ in range(2):
        desk.disconnect()
        desk.topic.restart()
        desk.settle()
    assert [(gap.epoch, gap.missed_from) for gap in reader.gaps] == [("e0", 2), ("e1", 1)]
    desk.publish()
    desk.settle()
    assert reader.positions == [("e0", 1), ("e2", 1)]


def test_full_reader_gets_the_rest_after_reading() -> None:
    desk = ReaderRig(history=10, capacity=4)
    reader = desk.add_reader()
    desk.settle()
    for _ in range(8):
        desk.publish()
    assert reader.reader.is_behind(TOPIC)
    assert not desk.needs_sync(), "there is no room for an answer yet"
    reader.read(1)
    assert not desk.needs_sync()
    reader.read(1)
    assert desk.needs_sync()
    desk.settle()
    assert [seq for _, seq in reader.positions] == list(range(1, 9))
    assert reader.gaps == []


def test_slow_reader_does_not_affect_another() -> None:
    desk = ReaderRig(history=3, capacity=4)
    slow, swift = desk.add_reader(), desk.add_reader()
    desk.settle()
    for _ in range(12):
        desk.publish()
        swift.read(1)
    assert [seq for _, seq in swift.positions] == list(range(1, 13))
    desk.publish(lost=True)
    desk.publish()
    # It asks for the swift one alone, and so nothing is told of a gap.
    desk.send_request()
    desk.receive_reply()
    swift.read(9)
    assert [seq for _, seq in swift.positions] == list(range(1, 15))
    assert swift.gaps == []
    desk.settle()
    assert slow.gaps == [Gap(TOPIC, "e0", 5, 13, GapReason.HISTORY)]
    assert [seq for _, seq in slow.positions] == [1, 2, 3, 4, 14]


def test_reader_that_gains_space_during_a_request_is_next() -> None:
    desk = ReaderRig(history=20, capacity=4)
    slow, swift = desk.add_reader(), desk.add_reader()
    desk.settle()
    for _ in range(6):
        desk.publish()
        swift.read(1)
    desk.publish(lost=True)
    desk.publish()
    desk.send_request()
    slow.read(4)
    desk.receive_reply()
    assert desk.needs_sync()
    desk.settle()
    assert [seq for _, seq in slow.positions] == list(range(1, 9))


def test_blocked_reader_triggers_no_request() -> None:
    desk = ReaderRig(history=2, capacity=4)
    slow = desk.add_reader()
    desk.settle()
    for _ in range(6):
        desk.publish()
    slow.read(1)
    desk.disconnect()
    for _ in range(5):
        desk.publish()
    desk.send_request()
    desk.receive_reply()
    assert not desk.needs_sync()
    desk.settle()
    assert [seq for _, seq in slow.positions] == [1, 2, 3, 4, 11]
    assert [(gap.missed_from, gap.missed_to) for gap in slow.gaps] == [(5, 10)]


def test_full_reader_gets_one_gap_for_several_restarts() -> None:
    desk = ReaderRig(capacity=1)
    reader = desk.add_reader()
    desk.settle()
    desk.publish()
    for _ in range(5):
        desk.disconnect()
        desk.topic.restart()
        desk.send_request()
        desk.receive_reply()
    desk.settle()
    assert reader.positions == [("e0", 1)]
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]


def test_shared_reply_with_a_gap_for_one_reader_only() -> None:
    desk = ReaderRig(history=3, capacity=10)
    far, near = desk.add_reader(at(1)), desk.add_reader(at(8))
    desk.topic.seq = 10
    desk.settle()
    assert near.gaps == []
    assert [seq for _, seq in near.positions] == [9, 10]
    assert far.gaps == [Gap(TOPIC, "e0", 2, 9, GapReason.HISTORY)]


def test_state_too_large_for_a_shared_reply_gets_its_own_request() -> None:
    desk = ReaderRig(history=3)
    reader = desk.add_reader(at(1))
    desk.topic.seq = 10
    desk.send_request()
    desk.receive_reply(shared=True)
    assert desk.subscription.needs_own_request
    assert reader.gaps == []
    desk.settle()
    assert len(reader.gaps) == 1


def test_later_reader_starts_at_the_current_position() -> None:
    desk = ReaderRig()
    early = desk.add_reader()
    desk.settle()
    desk.publish()
    late = desk.add_reader()
    desk.settle()
    desk.publish()
    desk.settle()
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
    desk = ReaderRig(history=history, capacity=capacity)
    readers = [desk.add_reader(), desk.add_reader()]
    desk.settle()
    published: dict[str, int] = {"e0": 0}
    for step, reader in steps:
        if step == "publish" or step == "lose":
            desk.publish(lost=step == "lose")
        elif step == "cut":
            desk.disconnect()
        elif step == "restart":
            desk.disconnect()
            desk.topic.restart()
        elif step == "heartbeat" and desk.subscribed:
            desk.subscription.receive(desk.topic.heartbeat())
        elif step == "ask":
            desk.send_request()
        elif step == "answer":
            desk.receive_reply()
        elif step == "read":
            readers[reader].read(read_at_once)
        published[desk.topic.epoch] = desk.topic.seq
    if desk.connected:
        # A last one that was lost shows with the next heartbeat.
        desk.send_request()
        desk.receive_reply()
        desk.subscription.receive(desk.topic.heartbeat())
    desk.settle()
    desk.settle()
    for each in readers:
        assert each.positions == sorted(set(each.positions)), "once, and in order"
        for epoch, last in published.items():
            for seq in range(1, last + 1):
                came = (epoch, seq) in each.positions
                missing = each.reports_missing(epoch, seq)
                skipped = _whole_epoch_is_covered(each.gaps, epoch)
                assert came != missing or (not came and skipped), (epoch, seq, each)


def test_reader_added_during_a_request_gets_a_snapshot() -> None:
    subject: TopicSubscription[MarketMessage] = TopicSubscription(
        "PRICE:A", Continuity.LATEST, Counters()
    )
    early, late = (Reader[MarketMessage](4, Counters(), on_space=lambda _: None) for _ in "ab")
    subject.add(early)
    subject.begin_sync()
    state = TopicState("e0", 1, False, price("e0", 1, "snapshot"), ())
    assert subject.apply_state(state, shared=False)
    subject.on_disconnect()
    assert subject.begin_sync() == at(1)
    subject.add(late)
    # Nothing is new to the one who was asked for.
    subject.apply_state(TopicState("e0", 1, True, None, ()), shared=False)
    assert not late.is_ready
    assert subject.needs_sync
    assert subject.begin_sync() is None
    subject.apply_state(state, shared=False)
    assert (late.take(), late.is_ready) == (state.snapshot, True)
    early.take()
    assert early.take() is None


def _whole_epoch_is_covered(gaps: list[Gap], epoch: str) -> bool:
    """An epoch of which nothing was heard lies inside the gap from the one before it."""
    return any(gap.reason is GapReason.EPOCH and gap.epoch < epoch for gap in gaps)
