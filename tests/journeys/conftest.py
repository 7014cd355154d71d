"""Run the journeys on both event loops: asyncio's own and uvloop."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

Factories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Factories:
    """Select the loops of a test; they differ in what a closing transport accepts."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
