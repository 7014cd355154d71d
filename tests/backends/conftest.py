"""Runs every test here with each kind of broker."""

import pytest

from tests.kit.rigs.broker_cluster import BrokerCluster
from tests.kit.rigs.presence_cluster import PresenceCluster

URLS = {"redis": "shared_redis", "sentinel": "sentinel_url", "shards": "shards_url"}


@pytest.fixture(params=["memory", *URLS])
def cluster(request: pytest.FixtureRequest) -> BrokerCluster:
    """What the nodes of one test share, and nobody else."""
    return BrokerCluster(request.param, url_of(request))


@pytest.fixture(params=["memory", *URLS])
def quarter(request: pytest.FixtureRequest) -> PresenceCluster:
    """The same for what they know of sessions."""
    return PresenceCluster(url_of(request))


def url_of(request: pytest.FixtureRequest) -> str | None:
    """Where the broker of this kind is; None where it is in memory."""
    if request.param == "memory":
        return None
    found = request.getfixturevalue(URLS[request.param])
    return found if isinstance(found, str) else str(found.url)
