"""Runs the tests of the transport on both loops: Python's own, and the one that serves."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

Factories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Factories:
    """Two loops differ in what a closing transport puts up with."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
