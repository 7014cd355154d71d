"""All our presence managers pass the suites that applications use for theirs."""

import pytest

from floorcast.testing.presence_suite import PresenceSuite, SharedPresenceSuite
from tests.backends.conftest import URLS, url_of
from tests.kit.rigs.presence_cluster import PresenceCluster


class TestPresence(PresenceSuite):
    """The managers of one process."""

    @pytest.fixture(params=["memory", "file"])
    def cluster(self, request: pytest.FixtureRequest) -> PresenceCluster:
        """A cluster with storage of its own for each test."""
        return PresenceCluster(url_of(request))


class TestSharedPresence(SharedPresenceSuite):
    """The managers of several nodes."""

    @pytest.fixture(params=[*URLS])
    def cluster(self, request: pytest.FixtureRequest) -> PresenceCluster:
        """A cluster with storage of its own for each test."""
        return PresenceCluster(url_of(request))
