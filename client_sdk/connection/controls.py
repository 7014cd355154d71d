"""What the server says about the connection itself: welcome, goodbye, hints, expiring tokens."""

import asyncio
from collections.abc import Callable

from pydantic import ValidationError

from client_sdk.connection.clock import ServerClock
from client_sdk.connection.packets import Packet
from client_sdk.connection.renewal import TokenRenewal
from client_sdk.connection.wire import Connection
from client_sdk.contract import Welcome
from client_sdk.contract.messages import Body
from client_sdk.errors import FloorcastError, ProtocolError, error_from_code


class Goodbye(Body):
    """`goodbye`, of which a code may be new to this SDK."""

    code: str
    message: str = ""
    reconnect: bool = True
    after_ms: int = 0

    def to_error(self) -> FloorcastError:
        """As an exception."""
        return error_from_code(self.code, self.message)


class ReconnectHint(Body):
    """`reconnect_hint`."""

    after_ms: int = 0


class TokenExpiring(Body):
    """`token_expiring`."""

    expires_in_ms: int = 0


_NO_GOODBYE = Goodbye(code="server.internal", message="the server ended it", reconnect=False)


class ControlEvents:
    """What was said on one connection."""

    def __init__(
        self, clock: ServerClock, renewal: TokenRenewal, on_change: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._on_change = on_change
        self._goodbyes: dict[str, Goodbye] = {}
        # Why the connection ends, once it was said.
        self.goodbye: Goodbye | None = None
        # When the server wants us to come again, by the loop's clock.
        self.reconnect_at: float | None = None
        self.renewal = renewal
        self._handlers = {
            "welcome": self._on_welcome,
            "goodbye": self._on_goodbye,
            "reconnect_hint": self._on_hint,
            "token_expiring": self._on_expiring,
        }

    @property
    def is_final(self) -> bool:
        """Whether the server sent us away and does not want us back."""
        return self.goodbye is not None and not self.goodbye.reconnect

    @property
    def is_reconnect_due(self) -> bool:
        """Whether the moment has come that the server named."""
        return (
            self.reconnect_at is not None and self.reconnect_at <= asyncio.get_running_loop().time()
        )

    @property
    def retry_after_ms(self) -> int:
        """How long the server wants us to stay away."""
        return 0 if self.goodbye is None else self.goodbye.after_ms

    def handle(self, wire: Connection, packet: Packet) -> bool:
        """Take what is about the connection; False for everything else."""
        known = self._handlers.get(packet.event)
        if known is None:
            return False
        try:
            known(wire, packet)
        except ValidationError:
            raise ProtocolError(f"a {packet.event} of no shape") from None
        return True

    def pop_goodbye(self, namespace: str) -> Goodbye:
        """Why the server has just ended this namespace."""
        return self._goodbyes.pop(namespace, _NO_GOODBYE)

    def _on_welcome(self, wire: Connection, packet: Packet) -> None:
        welcome = Welcome.model_validate_json(packet.body)
        self._clock.add_sample(welcome.server_time, wire.join_elapsed_seconds(packet.namespace))

    def _on_goodbye(self, wire: Connection, packet: Packet) -> None:
        farewell = Goodbye.model_validate_json(packet.body)
        if farewell.reconnect:
            self.goodbye = farewell
        else:
            # It ends this namespace alone, unless that is the last.
            self._goodbyes[packet.namespace] = farewell

    def _on_hint(self, wire: Connection, packet: Packet) -> None:
        after_ms = ReconnectHint.model_validate_json(packet.body).after_ms
        if self.reconnect_at is None:
            self.reconnect_at = asyncio.get_running_loop().time() + after_ms / 1000
            self._on_change()

    def _on_expiring(self, wire: Connection, packet: Packet) -> None:
        in_ms = TokenExpiring.model_validate_json(packet.body).expires_in_ms
        now = asyncio.get_running_loop().time()
        self.renewal.schedule(packet.namespace, now + in_ms / 1000, now)
        self._on_change()
