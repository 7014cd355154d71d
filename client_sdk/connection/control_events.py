"""Events about the connection itself: welcome, goodbye, reconnect hints, expiring tokens."""

import asyncio
from collections.abc import Callable

from pydantic import ValidationError

from client_sdk.connection.backoff import DEFAULT_SPREAD_SECONDS
from client_sdk.connection.clock import ServerClock
from client_sdk.connection.packets import Packet
from client_sdk.connection.tokens import TokenRenewal
from client_sdk.connection.websocket import Connection
from client_sdk.contract import Goodbye, ReconnectHint, TokenExpiring, Welcome
from client_sdk.errors import ProtocolError

_NO_GOODBYE = Goodbye(
    code="server.internal", message="the server ended the namespace", reconnect=False
)


class ControlEvents:
    """The control events of one connection, and what follows from them."""

    def __init__(
        self, clock: ServerClock, renewal: TokenRenewal, on_change: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._goodbyes: dict[str, Goodbye] = {}
        # Why the server ends the connection; None until it says so.
        self.goodbye: Goodbye | None = None
        # When the server wants a reconnect, by the loop's clock.
        self.reconnect_at: float | None = None
        # Over how long the server's clients must spread if they all lose it at once.
        self.spread_seconds = DEFAULT_SPREAD_SECONDS
        self.renewal = renewal
        self._handlers = {
            "welcome": self._on_welcome,
            "goodbye": self._on_goodbye,
            "reconnect_hint": self._on_hint,
            "token_expiring": self._on_expiring,
        }

    @property
    def is_final(self) -> bool:
        """True if the server said not to reconnect."""
        return self.goodbye is not None and not self.goodbye.reconnect

    @property
    def is_reconnect_due(self) -> bool:
        """True once the moment of a reconnect hint has come."""
        return (
            self.reconnect_at is not None and self.reconnect_at <= asyncio.get_running_loop().time()
        )

    @property
    def retry_after_ms(self) -> int:
        """The delay that the server asked for."""
        return 0 if self.goodbye is None else self.goodbye.after_ms

    def handle(self, connection: Connection, packet: Packet) -> bool:
        """Handle a control event; False for any other event. Raises `ProtocolError`."""
        handler = self._handlers.get(packet.event)
        if handler is None:
            return False
        try:
            handler(connection, packet)
        except ValidationError:
            raise ProtocolError(f"malformed {packet.event} event") from None
        return True

    def pop_goodbye(self, namespace: str) -> Goodbye:
        """Why the server has just ended this namespace."""
        return self._goodbyes.pop(namespace, _NO_GOODBYE)

    def _on_welcome(self, connection: Connection, packet: Packet) -> None:
        welcome = Welcome.model_validate_json(packet.body)
        if welcome.reconnect_spread_ms is not None:
            self.spread_seconds = welcome.reconnect_spread_ms / 1000
        self._clock.add_sample(
            welcome.server_time, connection.join_elapsed_seconds(packet.namespace)
        )

    def _on_goodbye(self, connection: Connection, packet: Packet) -> None:
        goodbye = Goodbye.model_validate_json(packet.body)
        if goodbye.reconnect:
            self.goodbye = goodbye
        else:
            # It ends this namespace alone, unless that is the last one.
            self._goodbyes[packet.namespace] = goodbye

    def _on_hint(self, connection: Connection, packet: Packet) -> None:
        after_ms = ReconnectHint.model_validate_json(packet.body).after_ms
        if self.reconnect_at is None:
            self.reconnect_at = asyncio.get_running_loop().time() + after_ms / 1000
            self._on_change()

    def _on_expiring(self, connection: Connection, packet: Packet) -> None:
        in_ms = TokenExpiring.model_validate_json(packet.body).expires_in_ms
        now = asyncio.get_running_loop().time()
        self.renewal.schedule(packet.namespace, now + in_ms / 1000, now)
        self._on_change()
