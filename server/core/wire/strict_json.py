"""Strict JSON: no NaN, no duplicate key, bounded depth, no integer that loses precision."""

import re
from typing import cast

import orjson

from server.core.wire.errors import WireError

MAX_DEPTH = 32
_CONTAINERS = (dict, list)
# Possessive, and matches a string that never ends: with backtracking, one message of 64 KB could
# block the process for many seconds.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# Digits that may not fit into 64 bits, which orjson would silently turn into a float; and which of
# those are an integer.
_LONG_RUN = re.compile(r"[0-9]{19}")
_LONG_INTEGER = re.compile(r"(?<![0-9.eE+-])-?[0-9]{19,}+(?![.eE])")


class MalformedJson(WireError):
    """Text that is not JSON, or JSON that the server refuses."""


def loads(text: str) -> object:
    """Parse JSON; raises `MalformedJson`."""
    if text.count("[") + text.count("{") > MAX_DEPTH and _too_deep(text):
        raise MalformedJson("JSON nested too deeply")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MalformedJson("invalid JSON") from None
    keys = _count_keys(value)
    # In most messages every colon belongs to a key; otherwise remove the strings and count again.
    if keys != text.count(":") and keys != _STRING.sub("", text).count(":"):
        raise MalformedJson("duplicate key in a JSON object")
    if _LONG_RUN.search(text):
        for digits in _LONG_INTEGER.findall(_STRING.sub("", text)):
            if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
                raise MalformedJson("integer exceeds 64 bits")
    return cast(object, value)


def dumps(value: object) -> bytes:
    """Encode compactly; raises `ValueError` for what JSON cannot hold."""
    try:
        # orjson would encode a dataclass too, and a NaN inside it as null, unseen by the check.
        encoded = orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    except orjson.JSONEncodeError as error:
        raise ValueError(str(error)) from None
    if b"null" in encoded and _holds_nan(value):
        raise ValueError("JSON has no NaN and no Infinity")
    return encoded


def _too_deep(text: str) -> bool:
    depth = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif character in "]}":
            depth -= 1
    return False


def _count_keys(value: object) -> int:
    count = 0
    if isinstance(value, dict):
        count = len(value)
        value = value.values()
    elif not isinstance(value, list):
        return 0
    for inner in value:
        if isinstance(inner, _CONTAINERS):
            count += _count_keys(inner)
    return count


def _holds_nan(value: object) -> bool:
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return any(map(_holds_nan, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_nan, value))
    return False
