"""Who is connected to a namespace: the principal, the way back, and when the token ends."""

from dataclasses import dataclass

from server.access import Principal
from server.transport import Connection


@dataclass(slots=True)
class JoinedClient:
    """One joined client of one namespace; only its principal changes, by a refreshed token."""

    connection_id: str
    namespace: str
    principal: Principal
    link: Connection
    warned: bool = False
