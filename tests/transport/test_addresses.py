"""Tests client addresses behind proxies, and allowed origins."""

import aiohttp
import pytest

from server.transport.origins import OriginPolicy, check_origin, is_loopback
from server.transport.proxies import TrustedProxies, outermost
from tests.kit.server.in_process import running

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


@pytest.mark.parametrize(
    ("origin", "host", "loopback", "is_allowed"),
    [
        ("http://localhost:5173", "localhost:8000", True, True),
        ("http://127.0.0.1:5173", "127.0.0.1:8000", True, True),
        ("http://[::1]:5173", "127.0.0.1:8000", True, True),
        ("https://localhost", "127.0.0.1:8000", True, True),
        ("http://evil.example", "127.0.0.1:8000", True, False),
        ("http://localhost.evil.example", "127.0.0.1:8000", True, False),
        ("null", "127.0.0.1:8000", True, False),
        # A name that an attacker's DNS server resolves to 127.0.0.1.
        ("http://localhost:5173", "evil.example:8000", True, False),
        ("http://localhost:5173", "floor.example", False, False),
    ],
)
def test_pages_of_this_machine_are_allowed_as_loopback(
    origin: str, host: str, loopback: bool, is_allowed: bool
) -> None:
    policy = OriginPolicy(("loopback",))
    assert policy.allows(origin, scheme="http", host=host, loopback=loopback) is is_allowed


def test_request_without_a_host_has_no_own_origin() -> None:
    assert not OriginPolicy(()).allows("http://floor.example", scheme="http", host=None)


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        ("localhost:8000", True),
        ("app.localhost:8000", True),
        ("127.0.0.1", True),
        ("127.1.2.3:8000", True),
        ("[::1]:8000", True),
        ("floor.example:8000", False),
        ("localhost.floor.example", False),
        ("10.0.0.1", False),
        ("[::1", False),
    ],
)
def test_own_origin_on_loopback_has_a_local_name(host: str, is_own: bool) -> None:
    origin, policy = f"http://{host}", OriginPolicy(("http://listed.example",))
    assert policy.allows(origin, scheme="http", host=host, loopback=True) is is_own
    assert policy.allows(origin, scheme="http", host=host)
    assert policy.allows("http://listed.example", scheme="http", host=host, loopback=True)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("198.51.100.1", False),
        ("::ffff:198.51.100.1", False),
        ("", False),
    ],
)
def test_loopback_peer_is_recognised(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://app.example:8080",
        "https://app.example/",
        "HTTPS://App.Example",
        "http://[::1]:3000",
        "https://xn--brse-5qa.example",
        "capacitor://localhost",
        "null",
        "*",
    ],
)
def test_origin_that_can_match_is_accepted(origin: str) -> None:
    assert check_origin(origin) == origin


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("app.example", "it has no scheme: write 'https://app.example'"),
        ("https://app.example/login", "it has a path: write 'https://app.example'"),
        ("https://app.example?a=1", "it has a path: write 'https://app.example'"),
        ("https://app.example:443", "browsers omit the default port: write 'https://app.example'"),
        ("http://app.example:80/", "browsers omit the default port: write 'http://app.example'"),
        ("wss://app.example", "not of a page: write 'https://app.example'"),
        ("ws://app.example:81", "not of a page: write 'http://app.example:81'"),
        ("https://ann:pw@app.example", "it has an account: write 'https://app.example'"),
        ("https://*.app.example", "wildcards are not supported: list each origin"),
        ("https://b\u00f6rse.example", "the ASCII form of a name: write 'https://xn--brse-5qa"),
        ("https://app.example:x", "it is malformed: write 'https://HOST'"),
        ("https://[::1", "it is malformed"),
        ("https://", "it has no host"),
    ],
)
def test_origin_that_can_never_match_is_refused_with_the_fix(origin: str, reason: str) -> None:
    with pytest.raises(ValueError, match="can never match") as refused:
        check_origin(origin)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (("https",), "https"),
        (("https, http",), "https"),
        (("floor.example,internal:8000",), "floor.example"),
        (("https", "http"), "https"),
        ((" ",), None),
        ((), None),
    ],
)
def test_forwarded_list_starts_with_what_the_browser_asked_for(
    values: tuple[str, ...], first: str | None
) -> None:
    assert outermost(values) == first


async def test_page_behind_two_proxies_has_the_own_origin() -> None:
    async with (
        running({"server.trusted_proxies": ["127.0.0.1"]}) as node,
        aiohttp.ClientSession() as http,
    ):
        url = f"{node.url}/socket.io/?EIO=4&transport=polling"
        headers = {
            "Origin": "https://floor.example",
            "X-Forwarded-Proto": "https, http",
            "X-Forwarded-Host": "floor.example, inner:8000",
        }
        async with http.get(url, headers=headers) as response:
            assert response.status == 200
        async with http.get(url, headers={**headers, "X-Forwarded-Proto": "http"}) as response:
            assert response.status == 403
