"""TLS to Redis: trusted and untrusted certificates, and error messages without secrets."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


async def assert_works(url: str) -> None:
    one = node(url)
    await one.start()
    await one.wait_until(lambda: bool(one.states))
    await one.broker.watch("A")
    await one.broker.publish("A", b"{}", NOW_MS, in_history=True)
    await one.wait_for_entries(1)
    writers = writers_of(one.broker)
    assert len(writers) == 2
    await one.stop()
    for each in writers:
        # TLS takes its leave of Redis before a socket closes.
        with contextlib.suppress(OSError):
            await each.wait_closed()


def writers_of(broker: Any) -> list[asyncio.StreamWriter]:
    """The open connections of a broker."""
    clients = (broker._pipeline._client, broker._subscriber._pubsub)
    return [each._connection._writer for each in clients]


async def start_error(url: str) -> str:
    with pytest.raises(BrokerError) as error:
        await node(url).start()
    return str(error.value)


async def test_server_with_a_known_authority_is_trusted(redis: TlsServer) -> None:
    await assert_works(f"rediss://127.0.0.1:{redis.port}/0?ssl_ca_certs={redis.authority.file}")


async def test_server_with_an_unknown_authority_is_rejected(
    redis: TlsServer, tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path)
    for query in ("", f"?ssl_ca_certs={other.file}"):
        reason = await start_error(f"rediss://127.0.0.1:{redis.port}/0{query}")
        assert reason.startswith("Redis's certificate is not trusted (")


async def test_server_certificate_for_another_name_is_rejected(redis: TlsServer) -> None:
    url = f"rediss://localhost:{redis.port}/0?ssl_ca_certs={redis.authority.file}"
    assert await start_error(url) == (
        "Redis's certificate is not trusted "
        "(Hostname mismatch, certificate is not valid for 'localhost')"
    )


async def test_client_presents_its_certificate_if_required() -> None:
    with tls_redis(asks_clients=True) as redis:
        trusting = f"rediss://127.0.0.1:{redis.port}/0?ssl_ca_certs={redis.authority.file}"
        await start_error(trusting)
        certificate, key = redis.authority.certificate("client")
        await assert_works(f"{trusting}&ssl_certfile={certificate}&ssl_keyfile={key}")


async def test_connection_error_omits_the_credentials(
    redis: TlsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    trusting = f"?ssl_ca_certs={redis.authority.file}"
    for host, query in (("127.0.0.1", ""), ("localhost", trusting), ("127.0.0.1", trusting)):
        url = f"rediss://hans:secret@{host}:{redis.port}/0{query}"
        texts = [await start_error(url), str(BrokerUrl(url)), repr(BrokerUrl(url)), caplog.text]
        assert not any("secret" in each or "hans" in each for each in texts), texts
