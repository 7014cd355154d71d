"""The venue's time travels in front of the data, and clients see the data without it."""

import orjson
import pytest

from server.core.market.source_time import copy_source_ts, split_source_ts, with_source_ts


@pytest.mark.parametrize("data", [b"{}", b'{"a":1}', b'{"a":{"b":[1,2]},"c":"}"}'])
def test_source_time_is_split_from_its_data(data: bytes) -> None:
    stamped = with_source_ts(data, 17)
    assert orjson.loads(stamped) == {"$source_ts": 17, **orjson.loads(data)}
    assert split_source_ts(stamped) == (b"17", data)


def test_data_without_a_time_is_unchanged() -> None:
    data = b'{"a":{"$source_ts":1}}'
    assert with_source_ts(data, None) is data
    assert split_source_ts(data) == (None, data)


def test_time_is_copied_to_other_data() -> None:
    assert copy_source_ts(with_source_ts(b"{}", 5), b'{"a":1}') == with_source_ts(b'{"a":1}', 5)
    assert copy_source_ts(b"{}", b'{"a":1}') == b'{"a":1}'
