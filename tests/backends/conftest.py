"""Runs every test of this package with each backend."""

import pytest

from tests.kit.rigs.broker_cluster import BrokerCluster

URLS = {"redis": "shared_redis", "sentinel": "sentinel_url", "shards": "shards_url"}


@pytest.fixture(params=["memory", "file", *URLS])
def cluster(request: pytest.FixtureRequest) -> BrokerCluster:
    """A cluster with storage of its own for each test."""
    return BrokerCluster(request.param, url_of(request))


def url_of(request: pytest.FixtureRequest) -> str | None:
    """The URL of the backend; None for memory."""
    if request.param == "memory":
        return None
    if request.param == "file":
        return f"file:{request.getfixturevalue('tmp_path')}"
    found = request.getfixturevalue(URLS[request.param])
    return found if isinstance(found, str) else str(found.url)
