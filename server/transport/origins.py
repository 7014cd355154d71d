"""Checks the Origin header: pages of our own origin and of the allow list may connect."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

from server.core.secret_urls import hide_secrets

ANY = "*"
# Pages of this machine, on any port.
LOOPBACK = "loopback"
# Sent by sandboxed frames and local files.
_OPAQUE = "null"
# A browser omits them.
_DEFAULT_PORTS = {"http": 80, "https": 443}
# The origin of a page is that of its document, not of its WebSocket.
_PAGE_SCHEMES = {"ws": "http", "wss": "https"}


class OriginPolicy:
    """The allowed origins. Browsers send an Origin header; other programs need only a token."""

    def __init__(self, allowed: Iterable[str]) -> None:
        names = frozenset(origin.rstrip("/").lower() for origin in allowed)
        self._any = ANY in names
        self._any_local = LOOPBACK in names
        self._allowed = names

    def allows(
        self, origin: str | None, *, scheme: str, host: str | None, loopback: bool = False
    ) -> bool:
        """Whether a page of `origin` may connect to the server at `scheme://host`.

        On the loopback interface the host must be a local name: an attacker's name that resolves
        to 127.0.0.1 (DNS rebinding) would make the attacker's page one of our own origin.
        """
        if origin is None or self._any:
            return True
        named = origin.lower()
        if named in self._allowed:
            return True
        if host is None or (loopback and not is_local_name(host)):
            return False
        if self._any_local and loopback and is_local_name(named.partition("://")[2]):
            return True
        return named == f"{scheme}://{host}".lower()


@lru_cache(maxsize=4096)
def is_loopback(address: str) -> bool:
    """Whether an address of a peer is of the loopback interface."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def check_origin(text: str) -> str:
    """Return the text if it can match an Origin header; raises `ValueError` with the fix."""
    if text in (ANY, LOOPBACK, _OPAQUE):
        return text
    problem, fix = _problem_and_fix(text)
    if problem is None:
        return text
    shown = hide_secrets(text) if "@" in text else text
    raise ValueError(f"{shown!r} can never match, because {problem}: {fix}")


def _problem_and_fix(text: str) -> tuple[str | None, str]:
    if "://" not in text:
        return "it has no scheme", f"write {f'https://{text}'!r}"
    try:
        parts = urlsplit(text.lower())
        host, port = parts.hostname or "", parts.port
        ascii_host = host.encode("idna").decode()
    except ValueError:
        return "it is malformed", "write 'https://HOST' or 'https://HOST:PORT'"
    if not host:
        return "it has no host", "write 'https://HOST' or 'https://HOST:PORT'"
    if "*" in host:
        return "wildcards are not supported", "list each origin, or '*' for any"
    scheme = _PAGE_SCHEMES.get(parts.scheme, parts.scheme)
    shown_host = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    is_default = port is None or port == _DEFAULT_PORTS.get(scheme)
    fix = f"write {scheme + '://' + shown_host + ('' if is_default else f':{port}')!r}"
    if scheme != parts.scheme:
        return f"{parts.scheme} is the scheme of a socket and not of a page", fix
    if parts.username is not None:
        return "it has an account", fix
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "it has a path", fix
    if port is not None and is_default:
        return "browsers omit the default port", fix
    if ascii_host != host:
        return "browsers send the ASCII form of a name", fix
    return None, fix


def is_local_name(host: str) -> bool:
    """Whether a host, with or without a port, is this machine, whatever a DNS server says."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name == "localhost" or name.endswith(".localhost") or is_loopback(name)
