"""What an application adds to the server."""

from dataclasses import dataclass

from server.access import AuthorizationRule
from server.embedding.authentication import Authenticate
from server.sockets import ApplicationGuard


@dataclass(frozen=True, slots=True)
class Extensions:
    """The application's own parts; each is optional."""

    authorize: AuthorizationRule | None = None
    authenticate: Authenticate | None = None
    guards: tuple[ApplicationGuard, ...] = ()

    @property
    def read_claims(self) -> bool:
        """Whether any part could read the claims of tokens."""
        return bool(self.authorize or self.guards)
