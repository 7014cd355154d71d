"""Timeouts and size limits of a client, and how it reaches its server."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ssl import SSLContext
from urllib.parse import urlsplit

from client_sdk.connection.backoff import BackoffConfig
from client_sdk.errors import ConfigError

_SCHEMES = ("http", "https", "ws", "wss")
_SOCKET_IO_PATH = "/socket.io"
_NAMESPACE_PATHS = ("/market", "/session")


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The defaults suit a service that runs for months; times are in seconds.

    Raises `ConfigError` for a value that makes no sense.
    """

    # One connection attempt: DNS, TCP, TLS and handshake.
    connect_seconds: float = 10.0
    # The first connection, over all attempts.
    start_seconds: float = 15.0
    token_seconds: float = 10.0
    answer_seconds: float = 10.0
    # A connection on which nothing arrives for so long is lost; half-way the client sends a ping.
    silence_seconds: float = 12.0
    # A send or publish, over all the connections that it is retried on.
    send_seconds: float = 30.0
    close_seconds: float = 2.0
    # Per reader; messages that are replaced by the latest of their topic do not count.
    buffer_messages: int = 1000
    # Sends and publishes that wait for a reply.
    pending_messages: int = 10_000
    batch_messages: int = 500
    batch_bytes: int = 96 * 1024
    backoff: BackoffConfig = field(default_factory=BackoffConfig)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "backoff":
                if not isinstance(value, BackoffConfig):
                    raise ConfigError(f"backoff must be a BackoffConfig, not {value!r}")
            elif each.name.endswith("_seconds"):
                _check_number(each.name, value, (int, float))
            else:
                _check_number(each.name, value, (int,))
        _check_backoff(self.backoff)


def _check_number(name: str, value: object, kinds: tuple[type, ...]) -> None:
    kind = "a number" if float in kinds else "a whole number"
    if isinstance(value, bool) or not isinstance(value, int | float) or type(value) not in kinds:
        raise ConfigError(f"{name} must be {kind}, not {value!r}")
    # Also refuses NaN.
    if not value > 0:
        raise ConfigError(f"{name} must be more than 0, not {value!r}")


def _check_backoff(backoff: BackoffConfig) -> None:
    for name in ("first_seconds", "most_seconds"):
        _check_number(f"backoff.{name}", getattr(backoff, name), (int, float))
    for name in ("least_seconds", "stable_seconds"):
        value = getattr(backoff, name)
        if value != 0:
            _check_number(f"backoff.{name}", value, (int, float))


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How the client opens its HTTP connection."""

    proxy: str | None = None
    ssl: SSLContext | bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    # Take the proxy from the environment (`HTTPS_PROXY`), and accounts from `.netrc`.
    trust_env: bool = False


def server_url(url: object) -> str:
    """The server's address without a slash at its end; raises `ConfigError` with what to do."""
    example = "give the server's address, such as http://localhost:8000"
    if not isinstance(url, str):
        raise ConfigError(f"the URL must be a string, not {type(url).__name__}: {example}")
    address = url.strip().rstrip("/")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the URL {url!r} is malformed ({error}): {example}") from None
    if "://" not in url:
        raise ConfigError(f"the URL {url!r} has no scheme: {example}")
    if parts.scheme not in _SCHEMES:
        raise ConfigError(f"the URL {url!r} must begin with http:// or https://")
    if not host:
        raise ConfigError(f"the URL {url!r} has no host: {example}")
    if parts.query or parts.fragment:
        raise ConfigError(f"the URL {url!r} must end before its ? or #: {example}")
    if _SOCKET_IO_PATH in parts.path:
        shorter = address[: address.index(_SOCKET_IO_PATH, len(parts.scheme) + 3)]
        raise ConfigError(f"the client adds /socket.io itself: use {shorter!r}, not {url!r}")
    for path in _NAMESPACE_PATHS:
        if parts.path.endswith(path):
            shorter = address[: -len(path)]
            raise ConfigError(f"the client joins {path} itself: use {shorter!r}, not {url!r}")
    return address
