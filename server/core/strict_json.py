"""JSON as the standard has it: no NaN, no key twice, no depth without end, no number bent."""

import json
import re
from collections.abc import Iterable
from typing import Any, cast

import orjson

from server.core.wire import WireError

MAX_DEPTH = 32
# A run of digits that may not fit into 64 bits, which orjson would quietly make a float.
_LONG_NUMBER = re.compile(r"\d{19}")
# A string without an end takes the rest at once: tried anew at each quote it would cost a square.
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z|\\)', re.DOTALL)


class MalformedJson(WireError):
    """Text that is not JSON, or JSON that we do not take."""


def loads(text: str) -> object:
    """Parse, or raise `MalformedJson`."""
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise MalformedJson("JSON too deep")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MalformedJson("not JSON") from None
    colons = text.count(":")
    if (colons and colons != _count_keys(value)) or _LONG_NUMBER.search(text):
        # Colons in strings, perhaps a key twice; digits in strings, perhaps a number bent.
        # The slow parser knows; it can have no new complaint about what orjson took.
        json.loads(text, object_pairs_hook=_unique, parse_int=_small_integer)
    return cast(object, value)


def dumps(value: object) -> bytes:
    """Encode compactly; raises `ValueError` for what JSON cannot hold."""
    try:
        encoded = orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None
    if b"null" in encoded and _holds_nan(value):
        raise ValueError("JSON has no NaN and no Infinity")
    return encoded


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _count_keys(value: object) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(_count_keys, value.values()))
    if isinstance(value, list):
        return sum(map(_count_keys, value))
    return 0


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise MalformedJson("the same key twice")
        unique[key] = value
    return unique


def _small_integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
        raise MalformedJson("a number too big")
    return 0


def _holds_nan(value: object) -> bool:
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return any(map(_holds_nan, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_nan, value))
    return False
