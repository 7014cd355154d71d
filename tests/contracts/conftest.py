"""Runs every test here with each kind of broker."""

import pytest

from tests.kit.halls import Quarter
from tests.kit.nodes import Cluster


@pytest.fixture(params=["memory", "redis"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """What the nodes of one test share, and nobody else."""
    kind: str = request.param
    server = None if kind == "memory" else request.getfixturevalue("shared_redis")
    return Cluster(kind, server)


@pytest.fixture(params=["memory", "redis"])
def quarter(request: pytest.FixtureRequest) -> Quarter:
    """The same for what they know of sessions."""
    kind: str = request.param
    server = None if kind == "memory" else request.getfixturevalue("shared_redis")
    return Quarter(kind, server)
