"""JSON: what the standard allows comes through exactly, and nothing else comes through."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.strict_json import MAX_DEPTH, MalformedJson, dumps, loads

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_what_is_written_is_read_again(value: object) -> None:
    assert loads(dumps(value).decode()) == value


@given(st.text(max_size=60) | st.from_regex(r'[\[\]{}:,"0-9eE+.\\ntrua-]{0,30}'))
def test_no_text_is_taken_that_the_standard_library_refuses(text: str) -> None:
    with contextlib.suppress(MalformedJson):
        value = loads(text)
        assert json.loads(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NaN",
        "-Infinity",
        "1e999",
        "01",
        "[1,]",
        '{"a":1,"a":1}',
        '{"x":[{"a":1,"a":2}]}',
        '{"a:":1,"a:":2}',
        '"\\ud800"',
        "123456789012345678901234567890",
        "-9223372036854775809",
        "18446744073709551616",
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
        "[" * 100_000,
    ],
)
def test_what_is_not_strict_json_is_refused(text: str) -> None:
    with pytest.raises(MalformedJson):
        loads(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"b":{"a":1}}',
        '[{"a":1},{"a":2}]',
        '{"time":"12:30:45","topics":["PRICE:BTCUSDT"]}',
        '"12345678901234567890123"',
        "18446744073709551615",
        "-9223372036854775808",
        "0.1234567890123456789012",
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        json.dumps(["[{" * 50]),
        json.dumps([[], [], []] * 30),
        json.dumps(['a "quoted" [ bracket'] * 40 + [[[]]]),
    ],
)
def test_what_looks_suspicious_but_is_fine_comes_through(text: str) -> None:
    assert loads(text) == json.loads(text)


@pytest.mark.parametrize(
    "value",
    [float("nan"), [float("inf")], {"a": {"b": (1.0, float("-inf"))}}, object(), {1: 2}, "\ud800"],
)
def test_what_json_cannot_hold_is_not_written(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        dumps(value)


def test_null_is_written_as_null() -> None:
    assert dumps({"a": None, "b": [None, 1.5]}) == b'{"a":null,"b":[null,1.5]}'
