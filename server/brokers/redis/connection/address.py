"""Parses the URL of a Redis: a single server, one behind Sentinels, or a Cluster."""

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from server.core.secret_urls import has_unescaped_account

_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
# The TLS options allowed in the query, named as in redis-py.
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_DEFAULT_PORTS = {"sentinel": 26379, "cluster": 6379}


class AddressKind(Enum):
    """The kind of Redis deployment."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


class AddressError(ValueError):
    """The URL is invalid; the message never quotes the URL, which may contain a password."""


@dataclass(frozen=True, slots=True)
class Address:
    """The hosts of a Redis and the credentials for it."""

    kind: AddressKind
    url: str = field(default="", repr=False)
    """For a single server: its URL, passed to redis-py."""

    hosts: tuple[tuple[str, int], ...] = ()
    """The Sentinels, or some nodes of the Cluster."""

    service: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_files: tuple[tuple[str, str], ...] = ()
    """TLS options; a single server has them in its URL."""

    @property
    def is_cluster(self) -> bool:
        """Whether the keys are spread over several shards."""
        return self.kind is AddressKind.CLUSTER

    @staticmethod
    def parse(url: str) -> "Address":
        """Parse `redis[s]://`, `unix://`, `redis[s]+sentinel://` or `redis[s]+cluster://`.

        Raises `AddressError` if the URL is invalid.
        """
        if has_unescaped_account(url):
            raise AddressError("percent-encode the account: '@' is %40, '/' is %2F, '[' is %5B")
        parts = urlsplit(url)
        scheme, _, kind = parts.scheme.partition("+")
        if parts.scheme not in (*_SCHEMES, *_CLUSTER_SCHEMES):
            known = ", ".join(f"{each}://" for each in ("memory", *_SCHEMES, *_CLUSTER_SCHEMES))
            raise AddressError(f"unknown scheme; use one of {known}")
        if not kind:
            if not (parts.path if scheme == "unix" else parts.hostname):
                raise AddressError(
                    "the host is missing" if scheme != "unix" else "the path is missing"
                )
            _check_port(parts)
            return Address(AddressKind.SINGLE, url)
        tls = scheme == "rediss"
        tls_files = _parse_tls_files(parts.query, tls)
        username, password, hosts = _parse_authority(parts, _DEFAULT_PORTS[kind])
        steps = [unquote(step) for step in parts.path.split("/") if step]
        if kind == "cluster":
            if steps:
                raise AddressError("a Cluster has only one database: remove the path")
            return Address(
                AddressKind.CLUSTER,
                hosts=hosts,
                username=username,
                password=password,
                tls=tls,
                tls_files=tls_files,
            )
        if not steps or len(steps) > 2:
            raise AddressError("the service name is missing: redis+sentinel://host:port/SERVICE/0")
        return Address(
            AddressKind.SENTINEL,
            hosts=hosts,
            service=steps[0],
            database=_parse_number(steps[1] if len(steps) > 1 else "0", "database"),
            username=username,
            password=password,
            tls=tls,
            tls_files=tls_files,
        )


def _check_port(parts: SplitResult) -> None:
    try:
        _ = parts.port
    except ValueError:
        # The library's text quotes it, which can be a part of an unescaped password.
        raise AddressError("the port must be a number") from None


def _parse_tls_files(query: str, tls: bool) -> tuple[tuple[str, str], ...]:
    found = tuple(parse_qsl(query, keep_blank_values=True))
    if any(name not in _TLS_OPTIONS for name, _ in found) or (found and not tls):
        raise AddressError(f"the query may contain only the TLS options {', '.join(_TLS_OPTIONS)}")
    return found


def _parse_authority(
    parts: SplitResult, port: int
) -> tuple[str | None, str | None, tuple[tuple[str, int], ...]]:
    account, _, host_list = parts.netloc.rpartition("@")
    username, _, password = account.partition(":")
    hosts = []
    for each in filter(None, host_list.split(",")):
        host, colon, digits = each.rpartition(":")
        if not colon or each.endswith("]"):
            host, digits = each, str(port)
        hosts.append((host.strip("[]"), _parse_number(digits, "port")))
    if not hosts:
        raise AddressError("the host is missing")
    return unquote(username) or None, unquote(password) or None, tuple(hosts)


def _parse_number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise AddressError(f"the {name} must be a number")
    return int(text)
