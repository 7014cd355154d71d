"""The record of one client joined to a namespace."""

from dataclasses import dataclass

from server.access import Principal
from server.transport import Connection


@dataclass(slots=True)
class JoinedClient:
    """A client joined to one namespace. Only a refreshed token changes its principal."""

    connection_id: str
    namespace: str
    principal: Principal
    link: Connection
    warned: bool = False
