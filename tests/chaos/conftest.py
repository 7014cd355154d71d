"""Run the chaos tests on both event loops, like the journeys."""

from tests.journeys.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
