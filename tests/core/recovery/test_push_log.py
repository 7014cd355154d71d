"""What was said apart from messages: said again to whom it was said, while it is remembered."""

from server.core.recovery.push_log import LoggedPush, PushLog


def told(*serials: int, max_count: int = 10, max_bytes: int = 1000) -> PushLog:
    log = PushLog(max_count=max_count, max_bytes=max_bytes)
    for serial in serials:
        log.append(LoggedPush(serial, serial * 10, b"%d" % serial))
    return log


def serials(sayings: list[LoggedPush] | None) -> list[int] | None:
    return None if sayings is None else [each.serial for each in sayings]


def test_what_came_after_a_write_is_told_in_its_order() -> None:
    log = told(2, 4, 6)
    assert [serials(log.after(serial, "ann")) for serial in (0, 2, 3, 6)] == [
        [2, 4, 6],
        [4, 6],
        [4, 6],
        [],
    ]


def test_who_was_not_to_hear_it_does_not_hear_it_later_either() -> None:
    log = told(2)
    log.append(LoggedPush(3, 0, b"ann is here", frozenset({"ann1", "ann2"})))
    assert serials(log.after(0, "ann2")) == [2]
    assert serials(log.after(0, "bob")) == [2, 3]


def test_what_had_to_make_room_by_count_or_by_bytes_cannot_be_told() -> None:
    for log in (told(2, 4, 6, max_count=2), told(2, 4, 6, max_bytes=2)):
        assert len(log) == 2
        assert log.after(1, "ann") is None
        assert serials(log.after(2, "ann")) == [4, 6]


def test_what_is_taken_back_is_said_anew_and_is_gone_here() -> None:
    log = told(2, 4, 6, max_bytes=3)
    assert log.pop_after(3) == [b"4", b"6"]
    assert serials(log.after(0, "ann")) == [2]
    log.append(LoggedPush(8, 0, b"44"))
    assert serials(log.after(0, "ann")) == [2, 8], "and gives its room back"
