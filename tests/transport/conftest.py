"""Runs the transport tests on asyncio's event loop and on uvloop."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

Factories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Factories:
    """Both loops: they differ in what a closing transport allows."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
