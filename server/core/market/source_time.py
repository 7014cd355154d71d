"""Keeps the venue's time of a message in front of its data, so that brokers need not know it."""

SOURCE_TS_FIELD = "$source_ts"
_START = b'{"$source_ts":'


def with_source_ts(data: bytes, source_ts: int | None) -> bytes:
    """The data of a message, an object as JSON, with the venue's time if it is known."""
    if source_ts is None:
        return data
    return b"%b%d%b%b" % (_START, source_ts, b"" if data == b"{}" else b",", data[1:])


def copy_source_ts(source: bytes, data: bytes) -> bytes:
    """`data` with the venue's time of another message, if that has one."""
    time, _ = split_source_ts(source)
    return data if time is None else with_source_ts(data, int(time))


def split_source_ts(data: bytes) -> tuple[bytes | None, bytes]:
    """The venue's time as JSON, None if it is unknown, and the data without it."""
    if not data.startswith(_START):
        return None, data
    time, comma, rest = data[len(_START) :].partition(b",")
    return (time, b"{" + rest) if comma else (time.removesuffix(b"}"), b"{}")
