"""Tests client addresses behind proxies, and allowed origins."""

import pytest

from server.transport.origins import OriginPolicy
from server.transport.proxies import TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.1.1.1", None, "10.1.1.1"),
        ("10.1.1.1", "198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", "198.51.100.1, 10.2.2.2, 192.0.2.7", "198.51.100.1"),
        ("10.1.1.1", "10.2.2.2", "10.2.2.2"),
        ("10.1.1.1", "198.51.100.1, nonsense", "10.1.1.1"),
        ("10.1.1.1", "nonsense, 10.2.2.2", "10.2.2.2"),
        ("10.1.1.1", "", "10.1.1.1"),
        ("10.1.1.1", "198.51.100.1:5555", "198.51.100.1"),
        ("10.1.1.1", "[2001:db9::1]:443", "2001:db9::1"),
        ("::ffff:10.1.1.1", "198.51.100.1", "198.51.100.1"),
        ("2001:db8::5%eth0", "::ffff:198.51.100.1", "198.51.100.1"),
        ("10.1.1.1", ", ".join(["6.6.6.6"] * 100 + ["10.1.1.1"] * 31), "6.6.6.6"),
        ("", "198.51.100.1", ""),
    ],
)
def test_right_most_untrusted_hop_is_the_client(
    peer: str, forwarded: str | None, client: str
) -> None:
    assert PROXIES.client_address(peer, forwarded) == client


def test_forwarded_headers_need_a_trusted_proxy() -> None:
    assert TrustedProxies([]).client_address("127.0.0.1", "198.51.100.1") == "127.0.0.1"


@pytest.mark.parametrize(
    ("allowed", "origin", "is_allowed"),
    [
        ((), None, True),
        ((), "http://floor.example", True),
        ((), "HTTP://Floor.Example", True),
        ((), "https://floor.example", False),
        ((), "http://floor.example:81", False),
        ((), "null", False),
        (("https://app.example/",), "https://app.example", True),
        (("https://app.example",), "https://app.example.evil", False),
        (("*",), "https://anything", True),
        (("*",), "null", True),
    ],
)
def test_own_origin_and_listed_origins_are_allowed(
    allowed: tuple[str, ...], origin: str | None, is_allowed: bool
) -> None:
    policy = OriginPolicy(allowed)
    assert policy.allows(origin, scheme="http", host="floor.example") is is_allowed


def test_request_without_a_host_has_no_own_origin() -> None:
    assert not OriginPolicy(()).allows("http://floor.example", scheme="http", host=None)
