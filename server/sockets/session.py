"""The `/session` namespace: for now it lets users in, and passes their session through."""

from client_sdk.contract import SESSION_NAMESPACE, ConnectAuth, ErrorCode, Scope
from server.access import Principal
from server.core.errors import AccessError
from server.sockets.floor import Floor
from server.sockets.namespace import FloorNamespace


class SessionNamespace(FloorNamespace):
    """Events of `/session`."""

    def __init__(self, floor: Floor) -> None:
        super().__init__(SESSION_NAMESPACE, floor, {}, anonymous_allowed=False)

    def admit(self, principal: Principal, auth: ConnectAuth) -> str | None:
        session_id = auth.session_id
        if session_id is not None:
            principal.require(Scope.SESSION_JOIN)
            if not principal.may_join(session_id):
                raise AccessError(ErrorCode.AUTH_FORBIDDEN, "the token does not allow this session")
        return session_id
