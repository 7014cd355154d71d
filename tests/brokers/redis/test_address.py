"""URLs of Redis: what each kind says, and what is wrong with the others."""

import pytest

from server.brokers import Address, AddressError
from server.brokers.redis.connection.address import AddressKind


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:1/2", "unix:///run/redis.sock?db=1"])
def test_one_server_is_left_to_the_library(url: str) -> None:
    assert Address.parse(url) == Address(AddressKind.SINGLE, url)


def test_sentinels_have_hosts_a_service_and_a_database() -> None:
    assert Address.parse("redis+sentinel://u:p%40ss@a:1,b,[::1]:3/mymaster/4") == Address(
        AddressKind.SENTINEL,
        hosts=(("a", 1), ("b", 26379), ("::1", 3)),
        service="mymaster",
        database=4,
        username="u",
        password="p@ss",
    )
    assert Address.parse("rediss+sentinel://a/m").tls


def test_the_files_of_tls_stand_after_a_question_mark() -> None:
    files = (("ssl_ca_certs", "/etc/ca.pem"), ("ssl_certfile", "c"), ("ssl_keyfile", "k"))
    said = "ssl_ca_certs=/etc/ca.pem&ssl_certfile=c&ssl_keyfile=k"
    assert Address.parse(f"rediss+sentinel://a/m?{said}").tls_files == files
    assert Address.parse(f"rediss+cluster://a?{said}").tls_files == files


def test_a_cluster_has_hosts_alone() -> None:
    assert Address.parse("redis+cluster://a:1,[::1]") == Address(
        AddressKind.CLUSTER, hosts=(("a", 1), ("::1", 6379))
    )
    address = Address.parse("rediss+cluster://:secret@a")
    assert (address.tls, address.username, address.password) == (True, None, "secret")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("amqp://h", "unknown scheme; known are memory://, redis://"),
        ("redis+pigeon://h", "unknown scheme"),
        ("", "unknown scheme"),
        ("redis://", "no host"),
        ("unix://", "no socket"),
        ("redis+sentinel://a", "need a service"),
        ("redis+sentinel://a/m/0/x", "need a service"),
        ("redis+sentinel:///m", "no host"),
        ("redis+sentinel://a/m/x", "the database is no number"),
        ("redis+sentinel://a:b/m", "the port is no number"),
        ("redis+cluster://a/1", "one database"),
        ("redis+cluster://a?ssl_ca_certs=x", "only ssl_ca_certs, ssl_certfile, ssl_keyfile of TLS"),
        ("rediss+cluster://a?secret=x", "after the question mark only"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(url: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        Address.parse(url)
