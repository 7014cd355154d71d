"""What the transport asks of a namespace, and refuses stock ones for."""

from collections.abc import Iterable
from typing import Any

import socketio

from server.core.errors import FloorcastError
from server.core.wire.packets import RawPacket


class NamespaceHandler(socketio.AsyncNamespace):  # type: ignore[misc]
    """A namespace whose every connect, event and disconnect comes by `trigger_event`.

    An implementation must reply to each event itself, refusals included: nothing runs before it.
    """

    namespace: str

    def failure_reply(self, event: str, failure: Exception) -> dict[str, Any]:
        """Log why an event's reply could not be sent; returns the reply to send instead."""
        raise NotImplementedError

    def echoes(self, event: str) -> bool:
        """Whether the sender of this event receives it too: ack and event then share one write."""
        return False

    def charge(self, connection_id: str, packet: RawPacket) -> FloorcastError | None:
        """Count an event when it is received; returns the error to refuse it with."""
        return None

    def repeat_connect(self, connection_id: str) -> bytes:
        """The frames that answer a second CONNECT of a joined connection like its first."""
        return b""

    def acknowledge(self, connection_id: str, ack_id: int) -> bool:
        """Handle an ACK packet; returns False if no event has this ack id."""
        return False


def stock_namespace(namespace: object) -> TypeError:
    """The error for a namespace of python-socketio, or for what is no namespace at all."""
    return TypeError(
        f"{type(namespace).__name__} is not a namespace of Floorcast: a socketio.AsyncNamespace "
        "has no authentication and no limits here. Subclass floorcast.server.Namespace and mark "
        "its handlers with @on"
    )


def check_namespaces(namespaces: Iterable[object]) -> None:
    """Raise `TypeError` for a stock namespace, and `ValueError` for a name that is taken or "/"."""
    names: set[str] = set()
    for each in namespaces:
        if not isinstance(each, NamespaceHandler):
            raise stock_namespace(each)
        if each.namespace == "/":
            raise ValueError('the namespace "/" stays closed: name yours, such as "/desk"')
        if each.namespace in names:
            raise ValueError(f"two namespaces are named {each.namespace}")
        names.add(each.namespace)
