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
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
# Braces become brackets; quotes stay until the strings are removed.
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(each for each in range(256) if each not in b'[]{}"')
_NOT_COLONS = bytes(each for each in range(256) if each not in b':"')
_TOO_DEEP = b"[" * (MAX_DEPTH + 1)
# In one round they remove up to 31 closing brackets and as many opening ones behind them.
_REOPENED = tuple(b"]" * count + b"[" * count for count in (1, 16, 8, 4, 2))
# Digits that may not fit into 64 bits, which orjson would silently turn into a float; and which of
# those are an integer.
_LONG_RUN = b"0" * 19
_ALL_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_INTEGER = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}+(?![.eE])")
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
    raw = text.encode()
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _is_too_deep(raw):
        raise MalformedJson("JSON nested too deeply")
    # The value has each key once, and a float for an integer of more than 64 bits. So if it encodes
    # to the same text, that has neither. Most clients write compactly, as orjson does.
    encoded = orjson.dumps(value)
    if encoded != raw:
        _check_members(raw, encoded)
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


def _is_too_deep(raw: bytes) -> bool:
    brackets = _outside_strings(raw, _NOT_BRACKETS)
    if _TOO_DEEP in brackets:
        return True
    # A bracket that closes and the next that opens lead back to the same depth: without both, the
    # text is as deep. Each round halves the number of values, so there are few rounds.
    while b"][" in brackets:
        for reopened in _REOPENED:
            brackets = brackets.replace(reopened, b"")
    return len(brackets) > 2 * MAX_DEPTH


def _check_members(raw: bytes, encoded: bytes) -> None:
    """Raise `MalformedJson` for a repeated key, or an integer that orjson made a float.

    `encoded` is the value of the text again, which has every key once.
    """
    if _has_repeated_key(raw, encoded):
        raise MalformedJson("duplicate key in a JSON object")
    if _LONG_RUN in raw.translate(_ALL_ZEROS):
        for digits in _LONG_INTEGER.findall(_STRING.sub(b"", raw)):
            if len(digits) > 20 or not -(2**63) <= int(digits) < 2**64:
                raise MalformedJson("integer exceeds 64 bits")


def _has_repeated_key(raw: bytes, encoded: bytes) -> bool:
    """Whether the text has more keys, and so more colons outside strings, than its value."""
    if raw.count(b":") == encoded.count(b":") and b"\\" not in raw:
        # Without escapes both have the same strings.
        return False
    colons = len(_outside_strings(raw, _NOT_COLONS))
    return colons != len(_outside_strings(encoded, _NOT_COLONS))


def _outside_strings(raw: bytes, unwanted: bytes) -> bytes:
    """What is left of valid JSON without its strings, the unwanted bytes, and kinds of brackets."""
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    kept = raw.translate(_ONE_KIND, unwanted)
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
