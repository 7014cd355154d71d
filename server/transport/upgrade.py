"""Upgrades a polling client to a WebSocket without losing packets (Engine.IO, "Upgrade")."""

import logging

from server.core.wire.frames import text_frame
from server.transport.connection import Connection
from server.transport.host import ConnectionHost
from server.transport.polling import PollingCarrier
from server.transport.websocket import WebSocketCarrier

logger = logging.getLogger(__name__)

_PROBED = text_frame(b"3probe")
_NOOP = text_frame(b"6")


class Probe:
    """A WebSocket that upgrades a polling connection: "2probe", "3probe", then "5"."""

    __slots__ = ("_connection", "_host", "_probed", "carrier")

    def __init__(
        self, host: ConnectionHost[Connection], connection: Connection, *, deflates: bool
    ) -> None:
        self._host = host
        self._connection = connection
        self._probed = False
        self.carrier = WebSocketCarrier(
            self,
            max_message_bytes=connection.max_message_bytes,
            clog_bytes=host.config.clog_bytes,
            deflates=deflates,
        )

    def begin(self, now: float) -> None:
        """Start the time limit of the upgrade; the WebSocket is open."""
        self._connection.upgrading = True
        self._host.watch(self, now + self._host.config.probe_seconds)

    def check(self, now: float) -> None:
        """Fail the upgrade: the probe timed out, and the client keeps polling."""
        self._fail(1000)

    def on_text(self, text: str) -> None:
        connection = self._connection
        polling = connection.carrier
        if connection.closed or not isinstance(polling, PollingCarrier):
            self.carrier.abort()
        elif not self._probed and text == "2probe":
            self._probed = True
            self.carrier.write(_PROBED)
            # Engine.IO: a noop packet completes the last poll, which the client awaits.
            polling.write(_NOOP)
        elif self._probed and text == "5":
            self._upgrade(polling)
        else:
            self.on_violation("bad probe", 1002)

    def _upgrade(self, polling: PollingCarrier) -> None:
        connection = self._connection
        connection.upgrading = False
        self._host.unwatch(self)
        self.carrier.set_events(connection)
        connection.use_carrier(self.carrier)
        pending = b"".join(
            text_frame(packet) for packet in polling.take_packets() if packet != b"6"
        )
        polling.complete_poll()
        if pending:
            self.carrier.write(pending)

    def on_control_frame(self) -> None:
        self._connection.count_useless()
        if self._connection.closed:
            self.carrier.abort()

    def on_clogged(self) -> None:
        """No-op: only "3probe" is written before the upgrade."""

    def on_writable(self) -> None:
        """No-op, as above."""

    def on_close_request(self) -> None:
        self._fail(1000)

    def on_violation(self, reason: str, close_code: int) -> None:
        self._host.refusals.record("protocol", reason, self._connection.request.ip)
        self._fail(close_code)

    def _fail(self, close_code: int) -> None:
        # A second check aborts a client that does not complete the close.
        self._host.watch(self, self._host.clock.monotonic() + self._host.config.close_seconds)
        if self._connection.upgrading:
            self._connection.upgrading = False
            self.carrier.close(close_code)
        else:
            self.carrier.abort()

    def on_lost(self) -> None:
        self._connection.upgrading = False
        self._host.unwatch(self)
