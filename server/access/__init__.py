"""Access: verifies tokens and tells what their principals are authorized to do."""

from server.access.configuration import (
    AccessConfig,
    ConfigurationError,
    ContradictionError,
    UnusableKeyError,
    WeakKeyError,
)
from server.access.minting import mint, new_secret
from server.access.principal import Principal, anonymous
from server.access.requests import AuthRequest
from server.access.revocable import RevocableVerifier, Verifier
from server.access.rules import AuthorizationRule, authorize, find_refusals
from server.access.sources import find_token
from server.access.tokens import TokenVerifier, build_verifier

__all__ = [
    "AccessConfig",
    "AuthRequest",
    "AuthorizationRule",
    "ConfigurationError",
    "ContradictionError",
    "Principal",
    "RevocableVerifier",
    "TokenVerifier",
    "UnusableKeyError",
    "Verifier",
    "WeakKeyError",
    "anonymous",
    "authorize",
    "build_verifier",
    "find_refusals",
    "find_token",
    "mint",
    "new_secret",
]
