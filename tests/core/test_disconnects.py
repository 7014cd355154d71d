"""The reasons of a disconnect decide who may resume, and who keeps presence."""

import pytest

from server.core.disconnects import (
    CLIENT_DISCONNECT,
    PROTOCOL_ERROR,
    SERVER_DISCONNECT,
    TRANSPORT_CLOSE,
    DisconnectReason,
)


@pytest.mark.parametrize(
    ("reason", "resumable", "reconnect"),
    [
        (CLIENT_DISCONNECT, False, False),
        (SERVER_DISCONNECT, False, False),
        (PROTOCOL_ERROR, False, True),
        (TRANSPORT_CLOSE, True, True),
        (DisconnectReason("any other"), True, True),
    ],
)
def test_only_a_lost_connection_is_resumable(
    reason: DisconnectReason, resumable: bool, reconnect: bool
) -> None:
    assert (reason.resumable, reason.reconnect) == (resumable, reconnect)
