"""Runs chaos on both loops, as journeys are."""

from tests.journeys.conftest import pytest_asyncio_loop_factories

__all__ = ["pytest_asyncio_loop_factories"]
