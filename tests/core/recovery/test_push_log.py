"""The push log: later pushes for each client, while they are kept."""

from server.core.recovery.push_log import LoggedPush, PushLog


def make_log(*serials: int, max_count: int = 10, max_bytes: int = 1000) -> PushLog:
    log = PushLog(max_count=max_count, max_bytes=max_bytes)
    for serial in serials:
        log.append(LoggedPush(serial, serial * 10, b"%d" % serial))
    return log


def serials(pushes: list[LoggedPush] | None) -> list[int] | None:
    return None if pushes is None else [each.serial for each in pushes]


def test_after_returns_later_pushes_in_order() -> None:
    log = make_log(2, 4, 6)
    assert [serials(log.after(serial, "ann")) for serial in (0, 2, 3, 6)] == [
        [2, 4, 6],
        [4, 6],
        [4, 6],
        [],
    ]


def test_after_skips_pushes_that_exclude_the_client() -> None:
    log = make_log(2)
    log.append(LoggedPush(3, 0, b"ann is here", frozenset({"ann1", "ann2"})))
    assert serials(log.after(0, "ann2")) == [2]
    assert serials(log.after(0, "bob")) == [2, 3]


def test_after_returns_none_if_pushes_were_dropped() -> None:
    for log in (make_log(2, 4, 6, max_count=2), make_log(2, 4, 6, max_bytes=2)):
        assert len(log) == 2
        assert log.after(1, "ann") is None
        assert serials(log.after(2, "ann")) == [4, 6]


def test_pop_after_removes_the_pushes_it_returns() -> None:
    log = make_log(2, 4, 6, max_bytes=3)
    assert log.pop_after(3) == [b"4", b"6"]
    assert serials(log.after(0, "ann")) == [2]
    log.append(LoggedPush(8, 0, b"44"))
    assert serials(log.after(0, "ann")) == [2, 8], "the removed bytes are free again"
