"""What an application adds to the server."""

from dataclasses import dataclass, field

from server.access import AuthorizationRule
from server.embedding.authentication import Authenticate
from server.embedding.lifecycle import Handlers
from server.embedding.namespaces import Namespace
from server.sockets import ApplicationGuard


@dataclass(frozen=True, slots=True)
class Extensions:
    """The application's own parts; each is optional."""

    authorize: AuthorizationRule | None = None
    authenticate: Authenticate | None = None
    namespaces: tuple[Namespace, ...] = ()
    guards: tuple[ApplicationGuard, ...] = ()
    handlers: Handlers = field(default_factory=Handlers)

    @property
    def read_claims(self) -> bool:
        """Whether any part could read the claims of tokens."""
        return self != Extensions(authenticate=self.authenticate)
