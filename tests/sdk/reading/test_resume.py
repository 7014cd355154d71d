"""Exactly once, in order, or told: whatever the connection, the server and the reader do."""

from hypothesis import given
from hypothesis import strategies as st

from client_sdk import Gap, GapReason
from client_sdk.contract import Position, Stream
from client_sdk.models import BookMessage, MarketMessage, PriceMessage
from client_sdk.reading.gaps import Chain, Track, Verdict, chain_of
from client_sdk.reading.readers import Listener, State
from client_sdk.reading.topic_subscription import Subject
from client_sdk.stats import Counters
from tests.sdk.model import TOPIC, Desk, trade


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


def test_each_stream_has_its_chain() -> None:
    assert chain_of(Stream.PRICE) is Chain.LATEST
    assert chain_of(Stream.ORDERBOOK) is Chain.CHANGES
    assert chain_of(Stream.TRADES) is chain_of(Stream.USER_DATA) is Chain.KEPT


def test_a_kept_message_has_to_be_the_very_next() -> None:
    track = Track(Chain.KEPT, at(5))
    assert track.judge(trade("e0", 5)) is Verdict.KNOWN
    assert track.judge(trade("e0", 6)) is Verdict.NEXT
    assert track.judge(trade("e0", 7)) is Verdict.GAP
    assert track.judge(trade("e1", 6)) is Verdict.GAP
    # A snapshot that jumps stands for others, which may be had yet.
    assert track.judge(trade("e0", 9, "snapshot", 5)) is Verdict.GAP
    assert track.judge(trade("e0", 6, "snapshot", 5)) is Verdict.NEXT


def test_a_heartbeat_ahead_is_a_gap() -> None:
    for chain in Chain:
        track = Track(chain, at(5))
        assert track.judge(trade("e0", 5, "heartbeat", 5)) is Verdict.KNOWN
        assert track.judge(trade("e0", 6, "heartbeat", 6)) is Verdict.GAP
        assert track.judge(trade("e1", 1, "heartbeat", 1)) is Verdict.GAP


def test_a_price_stands_for_all_before_it() -> None:
    track = Track(Chain.LATEST, at(5))
    assert track.judge(price("e0", 5)) is Verdict.KNOWN
    assert track.judge(price("e0", 9)) is Verdict.NEXT
    assert track.judge(price("e1", 1)) is Verdict.NEXT


def test_changes_of_a_book_may_reach_back_but_leave_nothing_out() -> None:
    track = Track(Chain.CHANGES, at(5))
    assert track.judge(book("e0", 5, 4)) is Verdict.KNOWN
    assert track.judge(book("e0", 8, 5)) is Verdict.NEXT
    assert track.judge(book("e0", 8, 3)) is Verdict.NEXT
    assert track.judge(book("e0", 8, 6)) is Verdict.GAP
    assert track.judge(book("e1", 1, 0)) is Verdict.GAP
    assert track.judge(book("e1", 1, 0, "snapshot")) is Verdict.NEXT
    track.restart()
    assert track.position is None
    assert track.judge(book("e0", 5, 4, "snapshot")) is Verdict.NEXT


# --- a reader


def test_what_was_missed_is_asked_for_and_filled_in() -> None:
    desk = Desk()
    reader = desk.reader()
    desk.settle()
    desk.publish()
    desk.publish(lost=True)
    desk.publish()
    assert desk.lacks()
    assert desk.counters.gaps_seen == 1
    desk.settle()
    assert [seq for _, seq in reader.places] == [1, 2, 3]
    assert reader.gaps == []


def test_a_lost_last_message_shows_with_the_next_heartbeat() -> None:
    desk = Desk()
    reader = desk.reader()
    desk.settle()
    desk.publish(lost=True)
    assert not desk.lacks()
    assert not desk.subject.hear(desk.topic.heartbeat())
    desk.settle()
    assert reader.places == [("e0", 1)]


def test_what_is_gone_is_told_in_its_place() -> None:
    desk = Desk(history=2)
    reader = desk.reader()
    desk.settle()
    desk.publish()
    desk.cut()
    for _ in range(4):
        desk.publish()
    desk.settle()
    # The last is there as a snapshot; the three before it are gone.
    assert reader.gaps == [Gap(TOPIC, "e0", 2, 4, GapReason.HISTORY)]
    assert [seq for _, seq in reader.places] == [1, 5]
    assert desk.counters.gaps == 1


def test_a_server_that_lost_its_past_is_told_as_well() -> None:
    desk = Desk()
    reader = desk.reader()
    desk.settle()
    desk.publish()
    desk.cut()
    desk.topic.restart()
    desk.publish()
    desk.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]
    assert reader.places == [("e0", 1), ("e1", 1)]


def test_all_that_a_new_epoch_has_is_read() -> None:
    desk = Desk()
    reader = desk.reader()
    desk.publish()
    desk.settle()
    desk.cut()
    desk.topic.restart()
    for _ in range(4):
        desk.publish()
    desk.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]
    assert reader.places == [("e0", 1), *(("e1", seq) for seq in range(1, 5))]


def test_what_a_new_epoch_has_lost_already_is_told_as_well() -> None:
    desk = Desk(history=2)
    reader = desk.reader(at(3))
    desk.topic.restart()
    desk.topic.seq = 7
    desk.settle()
    assert reader.gaps == [
        Gap(TOPIC, "e0", 4, None, GapReason.EPOCH),
        Gap(TOPIC, "e1", 1, 6, GapReason.HISTORY),
    ]
    assert reader.places == [("e1", 7)]


def test_a_server_that_is_back_at_what_it_had_kept_is_told_and_followed() -> None:
    desk = Desk()
    reader = desk.reader()
    desk.settle()
    for _ in range(4):
        desk.publish()
    desk.settle()
    desk.cut()
    desk.topic.seq = 2
    desk.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 5, None, GapReason.EPOCH)]
    desk.publish()
    desk.settle()
    assert reader.places[-1] == ("e0", 3)


def test_a_new_epoch_that_goes_on_with_the_old_numbers_is_read_from_its_first_message() -> None:
    desk = Desk()
    reader = desk.reader()
    desk.settle()
    for _ in range(4):
        desk.publish()
    desk.settle()
    desk.cut()
    desk.topic.go_back(2)
    for _ in range(3):
        desk.publish()
    desk.settle()
    assert reader.gaps == [Gap(TOPIC, "e0", 5, None, GapReason.EPOCH)]
    assert reader.places == [*(("e0", seq) for seq in range(1, 5)), ("e1", 3), ("e1", 4), ("e1", 5)]


def test_a_restart_without_a_new_message_is_told_once() -> None:
    desk = Desk()
    reader = desk.reader()
    desk.publish()
    desk.settle()
    for _ in range(2):
        desk.cut()
        desk.topic.restart()
        desk.settle()
    assert [(gap.epoch, gap.missed_from) for gap in reader.gaps] == [("e0", 2), ("e1", 1)]
    desk.publish()
    desk.settle()
    assert reader.places == [("e0", 1), ("e2", 1)]


def test_a_reader_that_is_full_gets_the_rest_once_it_has_read() -> None:
    desk = Desk(history=10, capacity=4)
    reader = desk.reader()
    desk.settle()
    for _ in range(8):
        desk.publish()
    assert reader.listener.is_behind(TOPIC)
    assert not desk.lacks(), "there is no room for an answer yet"
    reader.read(1)
    assert not desk.lacks()
    reader.read(1)
    assert desk.lacks()
    desk.settle()
    assert [seq for _, seq in reader.places] == list(range(1, 9))
    assert reader.gaps == []


def test_a_slow_reader_costs_another_nothing() -> None:
    desk = Desk(history=3, capacity=4)
    slow, swift = desk.reader(), desk.reader()
    desk.settle()
    for _ in range(12):
        desk.publish()
        swift.read(1)
    assert [seq for _, seq in swift.places] == list(range(1, 13))
    desk.publish(lost=True)
    desk.publish()
    # It asks for the swift one alone, and so nothing is told of a gap.
    desk.ask()
    desk.answer()
    swift.read(9)
    assert [seq for _, seq in swift.places] == list(range(1, 15))
    assert swift.gaps == []
    desk.settle()
    assert slow.gaps == [Gap(TOPIC, "e0", 5, 13, GapReason.HISTORY)]
    assert [seq for _, seq in slow.places] == [1, 2, 3, 4, 14]


def test_who_makes_room_while_another_is_answered_is_asked_for_next() -> None:
    desk = Desk(history=20, capacity=4)
    slow, swift = desk.reader(), desk.reader()
    desk.settle()
    for _ in range(6):
        desk.publish()
        swift.read(1)
    desk.publish(lost=True)
    desk.publish()
    desk.ask()
    slow.read(4)
    desk.answer()
    assert desk.lacks()
    desk.settle()
    assert [seq for _, seq in slow.places] == list(range(1, 9))


def test_nothing_is_asked_for_who_could_not_take_the_answer() -> None:
    desk = Desk(history=2, capacity=4)
    slow = desk.reader()
    desk.settle()
    for _ in range(6):
        desk.publish()
    slow.read(1)
    desk.cut()
    for _ in range(5):
        desk.publish()
    desk.ask()
    desk.answer()
    assert not desk.lacks()
    desk.settle()
    assert [seq for _, seq in slow.places] == [1, 2, 3, 4, 11]
    assert [(gap.missed_from, gap.missed_to) for gap in slow.gaps] == [(5, 10)]


def test_a_full_reader_is_told_once_however_often_the_server_restarts() -> None:
    desk = Desk(capacity=1)
    reader = desk.reader()
    desk.settle()
    desk.publish()
    for _ in range(5):
        desk.cut()
        desk.topic.restart()
        desk.ask()
        desk.answer()
    desk.settle()
    assert reader.places == [("e0", 1)]
    assert reader.gaps == [Gap(TOPIC, "e0", 2, None, GapReason.EPOCH)]


def test_what_is_gone_for_one_may_be_there_for_another() -> None:
    desk = Desk(history=3, capacity=10)
    far, near = desk.reader(at(1)), desk.reader(at(8))
    desk.topic.seq = 10
    desk.settle()
    assert near.gaps == []
    assert [seq for _, seq in near.places] == [9, 10]
    assert far.gaps == [Gap(TOPIC, "e0", 2, 9, GapReason.HISTORY)]


def test_too_much_for_an_answer_with_others_is_asked_for_alone() -> None:
    desk = Desk(history=3)
    reader = desk.reader(at(1))
    desk.topic.seq = 10
    desk.ask()
    desk.answer(shared=True)
    assert desk.subject.alone
    assert reader.gaps == []
    desk.settle()
    assert len(reader.gaps) == 1


def test_who_comes_later_begins_where_the_others_are() -> None:
    desk = Desk()
    early = desk.reader()
    desk.settle()
    desk.publish()
    late = desk.reader()
    desk.settle()
    desk.publish()
    desk.settle()
    assert [seq for _, seq in early.places] == [1, 2]
    assert [seq for _, seq in late.places] == [2]


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
def test_every_message_comes_once_in_order_or_is_said_to_be_missing(
    steps: list[tuple[str, int]], history: int, capacity: int, read_at_once: int
) -> None:
    desk = Desk(history=history, capacity=capacity)
    readers = [desk.reader(), desk.reader()]
    desk.settle()
    published: dict[str, int] = {"e0": 0}
    for step, reader in steps:
        if step == "publish" or step == "lose":
            desk.publish(lost=step == "lose")
        elif step == "cut":
            desk.cut()
        elif step == "restart":
            desk.cut()
            desk.topic.restart()
        elif step == "heartbeat" and desk.subscribed:
            desk.subject.hear(desk.topic.heartbeat())
        elif step == "ask":
            desk.ask()
        elif step == "answer":
            desk.answer()
        elif step == "read":
            readers[reader].read(read_at_once)
        published[desk.topic.epoch] = desk.topic.seq
    if desk.connected:
        # A last one that was lost shows with the next heartbeat.
        desk.ask()
        desk.answer()
        desk.subject.hear(desk.topic.heartbeat())
    desk.settle()
    desk.settle()
    for each in readers:
        assert each.places == sorted(set(each.places)), "once, and in order"
        for epoch, last in published.items():
            for seq in range(1, last + 1):
                came = (epoch, seq) in each.places
                missing = each.misses(epoch, seq)
                skipped = _whole_epoch_is_covered(each.gaps, epoch)
                assert came != missing or (not came and skipped), (epoch, seq, each)


def test_who_comes_while_another_is_asked_for_gets_the_state_as_well() -> None:
    subject: Subject[MarketMessage] = Subject("PRICE:A", Chain.LATEST, Counters())
    early, late = (Listener[MarketMessage](4, Counters(), on_room=lambda _: None) for _ in "ab")
    subject.add(early)
    subject.ask()
    state = State("e0", 1, False, price("e0", 1, "snapshot"), ())
    assert subject.answer(state, shared=False)
    subject.lose()
    assert subject.ask() == at(1)
    subject.add(late)
    # Nothing is new to the one who was asked for.
    subject.answer(State("e0", 1, True, None, ()), shared=False)
    assert not late.is_ready
    assert subject.lacks
    assert subject.ask() is None
    subject.answer(state, shared=False)
    assert (late.take(), late.is_ready) == (state.snapshot, True)
    early.take()
    assert early.take() is None


def _whole_epoch_is_covered(gaps: list[Gap], epoch: str) -> bool:
    """An epoch of which nothing was heard lies inside the gap from the one before it."""
    return any(gap.reason is GapReason.EPOCH and gap.epoch < epoch for gap in gaps)
