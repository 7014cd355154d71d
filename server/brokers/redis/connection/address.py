"""Reads the URL of a Redis: one server, one that Sentinels know, or a Cluster."""

from dataclasses import dataclass
from enum import Enum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
# What may be said of TLS, as redis-py calls it: whom to trust, and who we are.
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}


class AddressKind(Enum):
    """What stands behind the address."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class AddressError(ValueError):
    """The URL makes no sense; its text has no part of the URL, which may carry a password."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is, and who we are to it."""

    kind: AddressKind
    url: str = ""
    """Of one server, as redis-py takes it."""

    hosts: tuple[tuple[str, int], ...] = ()
    """Of the Sentinels, or of some nodes of a Cluster."""

    service: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = None
    tls: bool = False
    tls_files: tuple[tuple[str, str], ...] = ()
    """For TLS; of one server they stand in its URL."""

    @staticmethod
    def parse(url: str) -> "Address":
        """Read `redis://`, `rediss://`, `unix://`, `redis+sentinel://` and `redis+cluster://`."""
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if parts.scheme not in (*_SCHEMES, *_CLUSTER_SCHEMES):
            known = ", ".join(f"{each}://" for each in ("memory", *_SCHEMES, *_CLUSTER_SCHEMES))
            raise AddressError(f"unknown scheme; known are {known}")
        if not kind:
            if not (parts.path if scheme == "unix" else parts.hostname):
                raise AddressError("it names no host" if scheme != "unix" else "it names no socket")
            return Address(AddressKind.SINGLE, url)
        tls = scheme == "rediss"
        files = _parse_tls_files(parts.query, tls)
        username, password, hosts = _parse_authority(parts, _DEFAULT_PORTS[kind])
        steps = [unquote(step) for step in parts.path.split("/") if step]
        if kind == "cluster":
            if steps:
                raise AddressError("a Cluster has one database only")
            return Address(
                AddressKind.CLUSTER,
                hosts=hosts,
                username=username,
                password=password,
                tls=tls,
                tls_files=files,
            )
        if not steps or len(steps) > 2:
            raise AddressError("Sentinels need a service: redis+sentinel://host:port/SERVICE/0")
        return Address(
            AddressKind.SENTINEL,
            hosts=hosts,
            service=steps[0],
            database=_parse_number(steps[1] if len(steps) > 1 else "0", "database"),
            username=username,
            password=password,
            tls=tls,
            tls_files=files,
        )


def _parse_tls_files(query: str, tls: bool) -> tuple[tuple[str, str], ...]:
    found = tuple(parse_qsl(query, keep_blank_values=True))
    if any(name not in _TLS_OPTIONS for name, _ in found) or (found and not tls):
        raise AddressError(
            f"after the question mark only {', '.join(_TLS_OPTIONS)} of TLS may stand"
        )
    return found


def _parse_authority(
    parts: SplitResult, port: int
) -> tuple[str | None, str | None, tuple[tuple[str, int], ...]]:
    account, _, listed = parts.netloc.rpartition("@")
    username, _, password = account.partition(":")
    hosts = []
    for each in filter(None, listed.split(",")):
        host, colon, digits = each.rpartition(":")
        if not colon or each.endswith("]"):
            host, digits = each, str(port)
        hosts.append((host.strip("[]"), _parse_number(digits, "port")))
    if not hosts:
        raise AddressError("it names no host")
    return unquote(username) or None, unquote(password) or None, tuple(hosts)


def _parse_number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise AddressError(f"the {what} is no number")
    return int(text)
