"""Strict JSON: no NaN, no duplicate key, bounded depth, no integer that loses precision."""

import re
from collections.abc import Iterable
from types import NoneType
from typing import cast

import orjson

from server.core.wire.errors import WireError

MAX_DEPTH = 32
# Possessive, and matches a string that never ends: with backtracking, one message of 64 KB could
# block the process for many seconds.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# Braces become brackets, and all else goes.
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NO_STRUCTURE = bytes(each for each in range(256) if each not in b'[]{}:"')
# Digits that may not fit into 64 bits, which orjson would silently turn into a float; and which of
# those are an integer.
_LONG_RUN = b"0" * 19
_ALL_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_INTEGER = re.compile(r"(?<![0-9.eE+-])-?[0-9]{19,}+(?![.eE])")
# By exact type: what can neither be NaN nor hold it.
_NEVER_NAN = frozenset((str, int, bool, NoneType))


class MalformedJson(WireError):
    """Text that is not JSON, or JSON that the server refuses."""


def loads(text: str) -> object:
    """Parse JSON; raises `MalformedJson`."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise MalformedJson("invalid JSON") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_too_deep(text):
        raise MalformedJson("JSON nested too deeply")
    if _has_repeated_key(text, value):
        raise MalformedJson("duplicate key in a JSON object")
    if _LONG_RUN in text.encode().translate(_ALL_ZEROS):
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


def _is_too_deep(text: str) -> bool:
    brackets = _structure(text).replace(b":", b"")
    # Each pass removes the innermost pairs.
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _has_repeated_key(text: str, value: object) -> bool:
    """Whether the text has more keys, and so more colons outside strings, than its value."""
    encoded = orjson.dumps(value).decode()
    if text.count(":") == encoded.count(":") and "\\" not in text:
        # Without escapes both have the same strings.
        return False
    return _structure(text).count(b":") != _structure(encoded).count(b":")


def _structure(text: str) -> bytes:
    """The brackets, all of one kind, and colons of valid JSON that are outside its strings."""
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    kept = text.encode().translate(_ONE_KIND, _NO_STRUCTURE)
    # Most strings are empty by now. Two that touch become one, with the same outside of them.
    kept = kept.replace(b'""', b"")
    return b"".join(kept.split(b'"')[::2])


def _holds_nan(value: object) -> bool:
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    if isinstance(value, dict):
        return _any_holds_nan(value.values())
    if isinstance(value, list | tuple):
        return _any_holds_nan(value)
    return False


def _any_holds_nan(values: Iterable[object]) -> bool:
    # A loop: most values are strings and numbers, which cost no call here.
    for value in values:  # noqa: SIM110
        if type(value) not in _NEVER_NAN and _holds_nan(value):
            return True
    return False
