"""Parsing of Redis URLs, and errors for invalid ones."""

import pytest

from server.brokers import Address, AddressError
from server.brokers.redis.connection.address import AddressKind


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:1/2", "unix:///run/redis.sock?db=1"])
def test_url_of_a_single_server_is_kept_for_redis_py(url: str) -> None:
    assert Address.parse(url) == Address(AddressKind.SINGLE, url)


def test_sentinel_url_has_hosts_service_and_database() -> None:
    assert Address.parse("redis+sentinel://u:p%40ss@a:1,b,[::1]:3/mymaster/4") == Address(
        AddressKind.SENTINEL,
        hosts=(("a", 1), ("b", 26379), ("::1", 3)),
        service="mymaster",
        database=4,
        username="u",
        password="p@ss",
    )
    assert Address.parse("rediss+sentinel://a/m").tls


def test_query_contains_the_tls_files() -> None:
    files = (("ssl_ca_certs", "/etc/ca.pem"), ("ssl_certfile", "c"), ("ssl_keyfile", "k"))
    query = "ssl_ca_certs=/etc/ca.pem&ssl_certfile=c&ssl_keyfile=k"
    assert Address.parse(f"rediss+sentinel://a/m?{query}").tls_files == files
    assert Address.parse(f"rediss+cluster://a?{query}").tls_files == files


def test_cluster_url_has_only_hosts() -> None:
    assert Address.parse("redis+cluster://a:1,[::1]") == Address(
        AddressKind.CLUSTER, hosts=(("a", 1), ("::1", 6379))
    )
    address = Address.parse("rediss+cluster://:secret@a")
    assert (address.tls, address.username, address.password) == (True, None, "secret")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("amqp://h", "unknown scheme; use one of memory://, redis://"),
        ("redis+pigeon://h", "unknown scheme"),
        ("", "unknown scheme"),
        ("redis://", "host is missing"),
        ("unix://", "path is missing"),
        ("redis+sentinel://a", "service name is missing"),
        ("redis+sentinel://a/m/0/x", "service name is missing"),
        ("redis+sentinel:///m", "host is missing"),
        ("redis+sentinel://a/m/x", "the database must be a number"),
        ("redis+sentinel://a:b/m", "the port must be a number"),
        ("redis+cluster://a/1", "only one database"),
        (
            "redis+cluster://a?ssl_ca_certs=x",
            "only the TLS options ssl_ca_certs, ssl_certfile, ssl_keyfile",
        ),
        ("rediss+cluster://a?secret=x", "the query may contain only"),
    ],
)
def test_error_for_an_invalid_url_omits_the_password(url: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        Address.parse(url)


@pytest.mark.parametrize(
    "url", ["redis://ann:s3cret@h", "redis://h?password=s3cret", "redis+cluster://ann:s3cret@h"]
)
def test_repr_hides_the_account(url: str) -> None:
    shown = repr(Address.parse(url))
    assert "s3cret" not in shown
    assert "ann" not in shown
