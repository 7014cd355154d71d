"""Why a connection ended, and what its client may expect of it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DisconnectReason:
    """The end of a connection, or of one namespace of it; by default a lost connection.

    Everything above the transport decides by the two flags; `code` is for people and logs.
    """

    code: str
    # The client may resume the connection.
    resumable: bool = True
    # The client may come back: its user keeps presence for the grace period.
    reconnect: bool = True


CLIENT_DISCONNECT = DisconnectReason("client disconnect", resumable=False, reconnect=False)
SERVER_DISCONNECT = DisconnectReason("server disconnect", resumable=False, reconnect=False)
PROTOCOL_ERROR = DisconnectReason("protocol error", resumable=False)
TRANSPORT_CLOSE = DisconnectReason("transport close")
