"""Strict JSON: valid values round-trip exactly, everything else is refused."""

import contextlib
import json
from dataclasses import dataclass
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core.wire.strict_json import MAX_DEPTH, MalformedJson, dumps, loads


@dataclass(frozen=True, slots=True)
class Dataclass:
    """A value that orjson encodes as an object by default."""

    value: float


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
def test_json_round_trips(value: object) -> None:
    assert loads(dumps(value).decode()) == value


@given(st.text(max_size=60) | st.from_regex(r'[\[\]{}:,"0-9eE+.\\ntrua-]{0,30}'))
def test_loads_accepts_no_more_than_the_standard_library(text: str) -> None:
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
        '{"a":1,"\\u0061":2}',
        # One colon is lost with the repeated key, and another one comes out of its disguise.
        '{"a":1,"a":"\\u003a"}',
        '{"a\\\\":1,"a\\\\":"\\u003a"}',
        '"\\ud800"',
        "123456789012345678901234567890",
        "-9223372036854775809",
        "18446744073709551616",
        '["a string", -123456789012345678901, "b"]',
        '{"1234567890123456789":12345678901234567890123}',
        "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
        '{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1),
        "[" * 100_000,
    ],
)
def test_loads_refuses_text_that_is_not_strict_json(text: str) -> None:
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
        "-12345678901234567890123.5",
        "12345678901234567890123e-12345678901234567890",
        '["\\\\", "1234567890123456789012:", {"a\\":": 1}]',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        json.dumps(["[{" * 50]),
        json.dumps([[], [], []] * 30),
        json.dumps(['a "quoted" [ bracket'] * 40 + [[[]]]),
    ],
)
def test_loads_accepts_valid_text_that_looks_invalid(text: str) -> None:
    assert loads(text) == json.loads(text)


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        [float("inf")],
        {"a": {"b": (1.0, float("-inf"))}},
        {"a": Dataclass(float("nan"))},
        object(),
        {1: 2},
        "\ud800",
    ],
)
def test_dumps_refuses_values_without_a_json_form(value: object) -> None:
    with pytest.raises(ValueError, match=r".+"):
        dumps(value)


def test_null_is_encoded_as_null() -> None:
    assert dumps({"a": None, "b": [None, 1.5]}) == b'{"a":null,"b":[null,1.5]}'


keys = st.sampled_from(["a", "b", 'a"', "a:", "\\", "é", "", '":{', "12345678901234567890123"])
objects = st.recursive(
    st.sampled_from(["1", "true", "1.5e3", '"x:y"', '"\\\\"', "12345678901234567890"]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda each: f"[{','.join(each)}]")
        | st.lists(st.tuples(keys, inner), max_size=3).map(
            lambda pairs: (
                "{" + ",".join(f"{json.dumps(key)}: {value}" for key, value in pairs) + "}"
            )
        )
    ),
    max_leaves=12,
)


@given(objects)
def test_object_is_refused_exactly_if_a_key_is_repeated(text: str) -> None:
    repeated = False

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal repeated
        repeated = repeated or len(dict(pairs)) < len(pairs)
        return dict(pairs)

    value = json.loads(text, object_pairs_hook=collect)
    if repeated:
        with pytest.raises(MalformedJson, match="duplicate key"):
            loads(text)
    else:
        assert loads(text) == value


@given(st.integers(-(2**67), 2**67), st.sampled_from(["%d", "[%d]", '{"a":[0, %d ]}', '["%d"]']))
def test_integer_is_exact_or_refused(number: int, form: str) -> None:
    text = form % number
    if -(2**63) <= number < 2**64 or '"%d"' in form:
        assert repr(loads(text)) == repr(json.loads(text))
    else:
        with pytest.raises(MalformedJson, match="exceeds 64 bits"):
            loads(text)


@given(st.integers(1, 60), st.sampled_from(['"["', '"\\""', '"\\\\"', "0"]), st.data())
def test_depth_ignores_brackets_in_strings(depth: int, leaf: str, data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.booleans(), min_size=depth, max_size=depth))
    text = leaf
    for is_object in kinds:
        text = f'{{"]}}\\"":{text}}}' if is_object else f'["[{{",{text}]'
    if depth <= MAX_DEPTH:
        assert loads(text) == json.loads(text)
    else:
        with pytest.raises(MalformedJson, match="nested too deeply"):
            loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 40 + '"' + '\\"' * 32_000,
        "[" * 40 + '"' + "\\" * 64_000,
        "[" * 40 + '""' * 32_000,
        "[" * 64_000,
        "[" + '{"":' * 16_000,
        ("[" + "1" * 18) * 3_400,
        "1" * 64_000,
        "-" + "1" * 64_000 + "e",
        "{" + '"a":":",' * 8_000 + '"a":1}',
    ],
    ids=["quotes", "backslashes", "strings", "arrays", "objects", "runs", "digits", "e", "keys"],
)
def test_hostile_text_is_refused_within_a_second(text: str) -> None:
    started = process_time()
    with pytest.raises(MalformedJson):
        loads(text)
    # A backtracking search would take half a minute.
    assert process_time() - started < 1
