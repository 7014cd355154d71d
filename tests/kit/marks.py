"""Mark each test by what it needs, from the parts of the kit that its module imports."""

from collections.abc import Iterator

import pytest

# `tox -e quick` runs the tests without these marks.
MARKS = {
    "floorcast.testing.server": "sockets",
    "tests.kit.network.http_proxies": "proxy",
    "tests.kit.network.tcp_proxy": "sockets",
    "tests.kit.redis.servers": "redis",
    "tests.kit.server.demo": "processes",
    "tests.kit.server.in_process": "sockets",
    "tests.kit.server.nodes": "sockets",
    "tests.kit.server.scripted": "sockets",
    "tests.kit.server.webhook": "sockets",
    "tests.kit.server.workers": "processes",
}
FOLDERS = {"chaos": "slow", "journeys": "sockets", "transport": "sockets", "workers": "processes"}
FIXTURES = {"shared_redis", "sentinel_url", "shards_url"}
# The backends of tests/backends, besides memory.
BACKENDS = {"redis", "sentinel", "shards"}


def marks_of(item: pytest.Item) -> Iterator[str]:
    """The marks of a test."""
    for folder in item.path.parts:
        if folder in FOLDERS:
            yield FOLDERS[folder]
    if isinstance(item, pytest.Function):
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        if FIXTURES.intersection(item.fixturenames) or any(
            p in BACKENDS for p in parameters if isinstance(p, str)
        ):
            yield "redis"
    module = item.getparent(pytest.Module)
    for value in vars(module.obj).values() if module is not None else ():
        home = getattr(value, "__module__", None)
        if home in MARKS:
            yield MARKS[home]
