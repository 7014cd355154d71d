"""Finds the master that the Sentinels name."""

import asyncio
from typing import Any

from redis.asyncio import Sentinel


async def find_master(sentinel: Sentinel, service: str) -> tuple[str, int]:
    """The master's address; raises `ConnectionError` while a failover is in progress."""
    answers = await asyncio.gather(
        *(each.sentinel_masters() for each in sentinel.sentinels), return_exceptions=True
    )
    states: list[Any] = [
        each[service] for each in answers if isinstance(each, dict) and service in each
    ]
    # Only the Sentinel that leads the failover knows of it.
    if any("failover_in_progress" in each["flags"] for each in states):
        raise ConnectionError("a failover is in progress")
    for each in states:
        if sentinel.check_master_state(each, service):
            return each["ip"], each["port"]
    failures = [each for each in answers if isinstance(each, BaseException)]
    raise failures[0] if failures else ConnectionError("the Sentinels know no master")
