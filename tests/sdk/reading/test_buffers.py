"""A buffer keeps items in order, or the latest of a topic, within its capacity."""

from client_sdk.reading.readers import Buffer


def drained(buffer: Buffer[str]) -> list[str]:
    items = []
    while (item := buffer.take()) is not None:
        items.append(item)
    return items


def test_latest_item_replaces_an_unread_one() -> None:
    buffer: Buffer[str] = Buffer(10)
    assert not buffer.replace("a", "a1")
    assert not buffer.replace("b", "b1")
    assert buffer.replace("a", "a2")
    assert len(buffer) == 2
    assert drained(buffer) == ["a2", "b1"]
    assert not buffer.replace("a", "a3")
    assert drained(buffer) == ["a3"]


def test_kept_items_stay_in_order_among_replaced_ones() -> None:
    buffer: Buffer[str] = Buffer(10)
    buffer.put("k1")
    buffer.replace("a", "a1")
    buffer.put("k2")
    buffer.replace("a", "a2")
    assert drained(buffer) == ["k1", "a2", "k2"]


def test_buffer_is_full_by_kept_items_and_has_space_at_half() -> None:
    buffer: Buffer[str] = Buffer(4)
    for topic in "abcdefgh":
        buffer.replace(topic, topic)
    states = [(buffer.is_full, buffer.has_space)]
    for number in range(4):
        buffer.put(str(number))
        states.append((buffer.is_full, buffer.has_space))
    assert states == [(False, True)] * 3 + [(False, False), (True, False)]
    for _ in range(8):
        buffer.take()
    assert buffer.is_full
    states = []
    while buffer.take() is not None:
        states.append((buffer.is_full, buffer.has_space))
    assert states == [(False, False)] + [(False, True)] * 3


def test_buffer_works_with_a_capacity_of_one() -> None:
    buffer: Buffer[str] = Buffer(1)
    buffer.put("k")
    assert buffer.is_full
    assert buffer.take() == "k"
    assert buffer.has_space
    assert buffer.take() is None
