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


def problem_found_by_walking(text: str) -> str | None:
    """The verdict of a walk over a text, one character and one member after the other."""
    problems = set()

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) < len(pairs):
            problems.add("duplicate key in a JSON object")
        return dict(pairs)

    def integer(digits: str) -> int:
        if not -(2**63) <= int(digits) < 2**64:
            problems.add("integer exceeds 64 bits")
        return int(digits)

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        json.loads(text, object_pairs_hook=collect, parse_int=integer, parse_constant=refuse)
    except ValueError:
        return "invalid JSON"
    depth = deepest = 0
    in_string = escaped = False
    for character in text:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        else:
            depth += (character in "[{") - (character in "]}")
            deepest = max(deepest, depth)
    if deepest > MAX_DEPTH:
        problems.add("JSON nested too deeply")
    order = ("JSON nested too deeply", "duplicate key in a JSON object", "integer exceeds 64 bits")
    return next((each for each in order if each in problems), None)


scalars = st.sampled_from(
    ["1", "-0", "1.0", "1E2", "null", '""', '"]["', '"\\""', '"\\\\"', '"\\u003a"', '"{\\"a\\":"']
) | st.sampled_from(["18446744073709551615", "18446744073709551616", "-12345678901234567890"])
spaces = st.sampled_from(["", "", "", " ", "\n"])
names = st.sampled_from(['"a"', '"b"', '"\\u0061"', '":["', '"a\\""', '"é"'])


@st.composite
def nested_texts(draw: st.DrawFn) -> str:
    """Values side by side and inside each other, some of them about as deep as is allowed."""
    text = draw(scalars)
    for _ in range(draw(st.integers(1, 3))):
        for is_object in draw(st.lists(st.booleans(), max_size=20)):
            space = draw(spaces)
            text = f"{{{draw(names)}:{space}{text}}}" if is_object else f"[{space}{text}{space}]"
        space = draw(spaces)
        text = draw(
            st.sampled_from(
                [
                    f"[{text},{space}{draw(scalars)},{text}]",
                    f"{{{draw(names)}:{text},{draw(names)}{space}:{draw(scalars)}}}",
                    text[:-1] or "1",
                ]
            )
        )
    return text


@given(nested_texts())
def test_verdict_is_that_of_a_walk_over_the_text(text: str) -> None:
    problem = problem_found_by_walking(text)
    if problem is None:
        assert loads(text) == json.loads(text)
    else:
        with pytest.raises(MalformedJson, match=f"^{problem}$"):
            loads(text)


@given(st.lists(st.integers(1, MAX_DEPTH + 1), min_size=1, max_size=40))
def test_depth_is_that_of_the_deepest_value(depths: list[int]) -> None:
    # As in "[[[0]],[0]]": each value begins where the one before it has closed some levels.
    text, depth = "", 0
    for index, goal in enumerate(depths):
        text += "]" * (depth - goal) + ("," if index else "") + "[" * (goal - depth) + "0"
        depth = goal
    text += "]" * depth
    if max(depths) <= MAX_DEPTH:
        assert loads(text) == json.loads(text)
    else:
        with pytest.raises(MalformedJson, match="nested too deeply"):
            loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(["[" * 31 + "]" * 31] * 4_000) + "]",
        "[" + ",".join("[" * depth + "]" * depth for depth in range(1, 32)) * 225 + "]",
        "[" * 30 + "[]," * 80_000 + "[]" + "]" * 30,
        "[" + ",".join(["1" * 18] * 12_000) + "]",
        "{" + ",".join(f'"{each}": "\\u003a"' for each in range(12_000)) + "}",
        '["' + '\\"[' * 80_000 + '"]',
    ],
    ids=["deep", "steps", "saw", "runs", "keys", "escapes"],
)
def test_quarter_of_a_megabyte_costs_less_than_a_second(text: str) -> None:
    text = text.replace("][", "],[")
    started = process_time()
    loads(text)
    # One pass over the text for each of its values would take minutes.
    assert process_time() - started < 1


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
