"""Creates the accounts documented in docs/redis.md, with exactly the documented rights."""

import re
from pathlib import Path

import redis

ACCOUNT = "floorcast:p"
_REDIS_DOC = (Path(__file__).parents[3] / "docs" / "redis.md").read_text()
_BLOCKS: list[str] = re.findall(r"```\n(.*?)```", _REDIS_DOC, re.DOTALL)
_USERS: list[list[str]] = [
    block.split()[4:] for block in _BLOCKS if block.startswith("user floorcast on >PASSWORD ")
]
_CLUSTER_RIGHTS = [block.split() for block in _BLOCKS if block.startswith("+cluster ")]


def grant(client: "redis.Redis", *rules: str) -> None:
    """Create the account with these rules."""
    client.execute_command("ACL SETUSER floorcast on >p", *rules)  # type: ignore[no-untyped-call]


def server_rights(*, any_name: bool = False) -> list[str]:
    """The rights on a single server; with `any_name` for any key prefix."""
    return [each.replace("floorcast:*", "*") if any_name else each for each in _USERS[0]]


def cluster_rights(*, any_name: bool = False) -> list[str]:
    """The rights on each shard of a Cluster."""
    return [*server_rights(any_name=any_name), *_CLUSTER_RIGHTS[0]]


def sentinel_rights() -> list[str]:
    """The rights on a Sentinel."""
    return _USERS[1]
