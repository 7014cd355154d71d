"""Runs every test here with each kind of broker."""

import pytest

from tests.kit.nodes import Cluster

URLS = {"redis": "shared_redis", "sentinel": "sentinel_url", "shards": "shards_url"}


@pytest.fixture(params=["memory", *URLS])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """What the nodes of one test share, and nobody else."""
    kind: str = request.param
    if kind == "memory":
        return Cluster(kind, None)
    found = request.getfixturevalue(URLS[kind])
    return Cluster(kind, found if isinstance(found, str) else found.url)
