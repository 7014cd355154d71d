"""What the server says about the connection itself: welcome, goodbye, hints, expiring tokens."""

import asyncio
from collections.abc import Callable

from pydantic import ValidationError

from client_sdk.connection.clock import ServerClock
from client_sdk.connection.packets import Packet
from client_sdk.connection.renewal import Renewal
from client_sdk.connection.wire import Wire
from client_sdk.contract import Welcome
from client_sdk.contract.messages import Body
from client_sdk.errors import FloorcastError, ProtocolError, refusal


class Farewell(Body):
    """`goodbye`, of which a code may be new to this SDK."""

    code: str
    message: str = ""
    reconnect: bool = True
    after_ms: int = 0

    def error(self) -> FloorcastError:
        """As an exception."""
        return refusal(self.code, self.message)


class Hint(Body):
    """`reconnect_hint`."""

    after_ms: int = 0


class Expiring(Body):
    """`token_expiring`."""

    expires_in_ms: int = 0


_UNEXPLAINED = Farewell(code="server.internal", message="the server ended it", reconnect=False)


class Controls:
    """What was said on one connection."""

    def __init__(self, clock: ServerClock, renewal: Renewal, on_change: Callable[[], None]) -> None:
        self._clock = clock
        self._on_change = on_change
        self._endings: dict[str, Farewell] = {}
        # Why the connection ends, once it was said.
        self.farewell: Farewell | None = None
        # When the server wants us to come again, by the loop's clock.
        self.leave_at: float | None = None
        self.renewal = renewal
        self._known = {
            "welcome": self._on_welcome,
            "goodbye": self._on_goodbye,
            "reconnect_hint": self._on_hint,
            "token_expiring": self._on_expiring,
        }

    @property
    def is_over(self) -> bool:
        """Whether the server sent us away and does not want us back."""
        return self.farewell is not None and not self.farewell.reconnect

    @property
    def is_time_to_leave(self) -> bool:
        """Whether the moment has come that the server named."""
        return self.leave_at is not None and self.leave_at <= asyncio.get_running_loop().time()

    @property
    def after_ms(self) -> int:
        """How long the server wants us to stay away."""
        return 0 if self.farewell is None else self.farewell.after_ms

    def take(self, wire: Wire, packet: Packet) -> bool:
        """Take what is about the connection; False for everything else."""
        known = self._known.get(packet.event)
        if known is None:
            return False
        try:
            known(wire, packet)
        except ValidationError:
            raise ProtocolError(f"a {packet.event} of no shape") from None
        return True

    def ending(self, namespace: str) -> Farewell:
        """Why the server has just ended this namespace."""
        return self._endings.pop(namespace, _UNEXPLAINED)

    def _on_welcome(self, wire: Wire, packet: Packet) -> None:
        welcome = Welcome.model_validate_json(packet.body)
        self._clock.look(welcome.server_time, wire.joining_seconds(packet.namespace))

    def _on_goodbye(self, wire: Wire, packet: Packet) -> None:
        farewell = Farewell.model_validate_json(packet.body)
        if farewell.reconnect:
            self.farewell = farewell
        else:
            # It ends this namespace alone, unless that is the last.
            self._endings[packet.namespace] = farewell

    def _on_hint(self, wire: Wire, packet: Packet) -> None:
        after_ms = Hint.model_validate_json(packet.body).after_ms
        if self.leave_at is None:
            self.leave_at = asyncio.get_running_loop().time() + after_ms / 1000
            self._on_change()

    def _on_expiring(self, wire: Wire, packet: Packet) -> None:
        in_ms = Expiring.model_validate_json(packet.body).expires_in_ms
        now = asyncio.get_running_loop().time()
        self.renewal.expect(packet.namespace, now + in_ms / 1000, now)
        self._on_change()
