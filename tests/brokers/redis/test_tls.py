"""TLS to Redis: whom the server trusts, whom it refuses, and what is said of it."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.brokers import Address, BrokerError, RedisBroker, RedisConfig
from server.core.counters import Counters
from server.settings import BrokerUrl
from tests.kit.clock import START, ManualClock
from tests.kit.network.certificates import CertificateAuthority
from tests.kit.redis.servers import TlsServer, tls_redis
from tests.kit.rigs.broker_cluster import BrokerNode

NOW_MS = int(START * 1000)


@pytest.fixture(scope="module")
def redis() -> Iterator[TlsServer]:
    with tls_redis() as server:
        yield server


def node(url: str) -> BrokerNode:
    return BrokerNode(RedisBroker(ManualClock(), Counters(), RedisConfig(Address.parse(url))))


async def works(url: str) -> None:
    one = node(url)
    await one.start()
    await one.wait_until(lambda: bool(one.states))
    await one.broker.watch("A")
    await one.broker.publish("A", b"{}", NOW_MS, in_history=True)
    await one.wait_for_entries(1)
    await one.stop()


async def refused(url: str) -> str:
    with pytest.raises(BrokerError) as error:
        await node(url).start()
    return str(error.value)


async def test_a_server_whose_authority_is_known_is_trusted(redis: TlsServer) -> None:
    await works(f"rediss://127.0.0.1:{redis.port}/0?ssl_ca_certs={redis.authority.file}")


async def test_a_server_whose_authority_is_not_known_is_not(
    redis: TlsServer, tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path)
    for query in ("", f"?ssl_ca_certs={other.file}"):
        reason = await refused(f"rediss://127.0.0.1:{redis.port}/0{query}")
        assert reason.startswith("its certificate is not to be trusted (")


async def test_a_server_that_has_a_certificate_for_another_name_is_not(redis: TlsServer) -> None:
    url = f"rediss://localhost:{redis.port}/0?ssl_ca_certs={redis.authority.file}"
    assert await refused(url) == (
        "its certificate is not to be trusted "
        "(Hostname mismatch, certificate is not valid for 'localhost')"
    )


async def test_a_client_shows_its_own_certificate_where_that_is_asked_for() -> None:
    with tls_redis(asks_clients=True) as redis:
        trusting = f"rediss://127.0.0.1:{redis.port}/0?ssl_ca_certs={redis.authority.file}"
        await refused(trusting)
        certificate, key = redis.authority.certificate("client")
        await works(f"{trusting}&ssl_certfile={certificate}&ssl_keyfile={key}")


async def test_what_is_said_of_a_failure_has_neither_the_password_nor_the_account(
    redis: TlsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    trusting = f"?ssl_ca_certs={redis.authority.file}"
    for host, query in (("127.0.0.1", ""), ("localhost", trusting), ("127.0.0.1", trusting)):
        url = f"rediss://hans:secret@{host}:{redis.port}/0{query}"
        said = [await refused(url), str(BrokerUrl(url)), repr(BrokerUrl(url)), caplog.text]
        assert not any("secret" in each or "hans" in each for each in said), said
