"""The replies of Redis, and what a caller expects of them."""

from collections.abc import Sequence
from typing import TypeAlias

from redis.exceptions import ResponseError

from client_sdk.contract import ErrorCode
from server.core.errors import FloorcastError

# RESP2, as hiredis decodes it. Only a batch has errors among its replies: the pipeline raises them.
Reply: TypeAlias = bytes | int | Sequence["Reply"] | ResponseError | None


def malformed_reply() -> FloorcastError:
    """The error for a reply of another shape: a foreign program has written the key."""
    return FloorcastError(ErrorCode.SERVER_INTERNAL, "what the broker holds is malformed")


def as_int(reply: Reply) -> int:
    """An integer; raises `FloorcastError` for anything else."""
    if not isinstance(reply, int):
        raise malformed_reply()
    return reply


def as_number(reply: Reply) -> int:
    """An integer that a script returned as such or as a string; raises `FloorcastError` else."""
    if isinstance(reply, bytes) and reply.isdigit():
        return int(reply)
    return as_int(reply)


def as_bytes(reply: Reply) -> bytes:
    """A string; raises `FloorcastError` for anything else."""
    if not isinstance(reply, bytes):
        raise malformed_reply()
    return reply


def as_optional_bytes(reply: Reply) -> bytes | None:
    """A string, or None for a missing one; raises `FloorcastError` for anything else."""
    return None if reply is None else as_bytes(reply)


def as_list(reply: Reply) -> list[Reply]:
    """A list; raises `FloorcastError` for anything else."""
    if not isinstance(reply, list):
        raise malformed_reply()
    return reply


def as_bytes_list(reply: Reply) -> list[bytes]:
    """A list of strings; raises `FloorcastError` for anything else."""
    return [as_bytes(each) for each in as_list(reply)]


def as_mapping(reply: Reply) -> dict[bytes, bytes]:
    """A hash, whose fields and values Redis lists in turn; raises `FloorcastError` otherwise."""
    flat = as_bytes_list(reply)
    if len(flat) % 2:
        raise malformed_reply()
    return dict(zip(flat[::2], flat[1::2], strict=True))
