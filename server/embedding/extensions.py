"""What an application adds to the server."""

from dataclasses import dataclass, field

from server.access import AuthorizationRule
from server.embedding.authentication import Authenticate, reads_requests
from server.embedding.lifecycle import Handlers
from server.embedding.namespaces import Namespace
from server.ports import ApplicationBackend
from server.sockets import ApplicationGuard


@dataclass(frozen=True, slots=True)
class Extensions:
    """The application's own parts; each is optional."""

    backend: ApplicationBackend | None = None
    authorize: AuthorizationRule | None = None
    authenticate: Authenticate | None = None
    namespaces: tuple[Namespace, ...] = ()
    guards: tuple[ApplicationGuard, ...] = ()
    handlers: Handlers = field(default_factory=Handlers)

    @property
    def read_headers(self) -> bool:
        """Whether the authentication reads the headers of connections."""
        return self.authenticate is not None and reads_requests(self.authenticate)

    @property
    def read_claims(self) -> bool:
        """Whether any part could read the claims of tokens."""
        return bool(self.authorize or self.namespaces or self.guards or self.handlers != Handlers())
