"""The configuration of token verification, validated before the server starts."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import jwt

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
MIN_SECRET_BYTES = 32


class ConfigurationError(ValueError):
    """The server cannot start; the message says what to change and contains no secret."""


class ContradictionError(ConfigurationError):
    """Settings contradict each other, or a value is meaningless."""


class WeakKeyError(ConfigurationError):
    """A key can be guessed, computed or looked up."""


class UnusableKeyError(ConfigurationError):
    """A key file cannot be read, or holds no key for the algorithm."""


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """One algorithm and one source of keys."""

    algorithm: str = "HS256"
    secret: str | None = field(default=None, repr=False)
    public_key_file: Path | None = None
    # It can have an account.
    jwks_url: str | None = field(default=None, repr=False)
    issuer: str | None = None
    audience: str = "floorcast"
    leeway_seconds: float = 0.0
    market_optional: bool = False
    token_in_query: bool = False
    keep_claims: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ContradictionError(f"auth.algorithm must be one of {', '.join(ALGORITHMS)}")
        self._check_source()
        if self.secret is not None:
            _check_secret(self.secret)
        if self.jwks_url is not None:
            _check_url(self.jwks_url)
        # An empty name would match tokens with an empty issuer or audience.
        if self.issuer == "":
            raise ContradictionError("auth.issuer must not be empty: omit it instead")
        if not self.audience:
            raise ContradictionError("auth.audience must not be empty")
        if not math.isfinite(self.leeway_seconds) or self.leeway_seconds < 0:
            raise ContradictionError("auth.leeway_seconds must be a number of at least 0")

    def _check_source(self) -> None:
        sources = {
            "auth.secret": self.secret,
            "auth.public_key_file": self.public_key_file,
            "auth.jwks_url": self.jwks_url,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            raise ContradictionError(
                f"set exactly one of {', '.join(sources)}; set are: {', '.join(given) or 'none'}"
            )
        if (self.algorithm == "HS256") is not (given == ["auth.secret"]):
            raise ContradictionError(f"{given[0]} cannot be used with {self.algorithm}")


def _check_secret(secret: str) -> None:
    try:
        encoded = secret.encode()
    except UnicodeEncodeError:
        raise UnusableKeyError("auth.secret is not valid Unicode text") from None
    if len(encoded) < MIN_SECRET_BYTES:
        raise WeakKeyError(f"auth.secret must have at least {MIN_SECRET_BYTES} bytes")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        # RFC 8725, 2.1: anyone who knows a public key could sign with it.
        raise WeakKeyError("auth.secret is a key or certificate: use random text") from None


def _check_url(url: str) -> None:
    try:
        url_parts = urlsplit(url)
        usable = url_parts.scheme in ("http", "https") and bool(url_parts.hostname)
        # Raises if it is no number.
        _ = url_parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ContradictionError("auth.jwks_url must be an http or https URL")
