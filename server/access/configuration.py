"""How tokens are to be verified, checked before anything is served."""

from dataclasses import dataclass
from pathlib import Path

ALGORITHMS = ("HS256", "RS256", "ES256", "EdDSA")
MIN_SECRET_BYTES = 32


class ConfigurationError(ValueError):
    """The server cannot start like this; the text says what to change and holds no secret."""


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """One algorithm and one source of keys."""

    algorithm: str = "HS256"
    secret: str | None = None
    public_key_file: Path | None = None
    jwks_url: str | None = None
    issuer: str | None = None
    audience: str = "floorcast"
    leeway_seconds: float = 0.0
    market_optional: bool = False
    token_in_query: bool = False

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ConfigurationError(f"auth.algorithm must be one of {', '.join(ALGORITHMS)}")
        sources = {
            "auth.secret": self.secret,
            "auth.public_key_file": self.public_key_file,
            "auth.jwks_url": self.jwks_url,
        }
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            raise ConfigurationError(
                f"set exactly one of {', '.join(sources)}; set are: {', '.join(given) or 'none'}"
            )
        if (self.algorithm == "HS256") is not (given == ["auth.secret"]):
            raise ConfigurationError(f"{given[0]} does not go with {self.algorithm}")
        if self.secret is not None and len(self.secret.encode()) < MIN_SECRET_BYTES:
            raise ConfigurationError(f"auth.secret must have at least {MIN_SECRET_BYTES} bytes")
        if self.leeway_seconds < 0:
            raise ConfigurationError("auth.leeway_seconds must not be negative")
