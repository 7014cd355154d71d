"""What an authentication may read of a client besides its token."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """A connect or a refreshed token; the client may have forged everything but its address.

    Of a call of the HTTP API only the token is known.
    """

    namespace: str = ""
    """The namespace that the client joins."""

    address: str = ""
    """The client's address, also behind trusted proxies."""

    # Both may hold secrets: not for logs.
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The headers of the request that opened the connection; names in any case."""

    auth: Mapping[str, object] = field(default_factory=dict, repr=False)
    """The `auth` payload of CONNECT; of a refreshed token `{"token": ...}`."""
