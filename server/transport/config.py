"""The configuration of the transport."""

from dataclasses import dataclass

SOCKET_PATH = "/socket.io/"
# How many refused clients may be connected to receive their reason.
MAX_REFUSED = 256
_MAX_CONNECT_BYTES = 16 * 1024
_MIN_UNSENT_BYTES = 16 * 1024
_MAX_INT = 2**31


@dataclass(frozen=True, slots=True)
class TransportConfig:
    """Times in seconds, sizes in bytes; a field has the meaning of its setting."""

    transports: tuple[str, ...] = ("polling", "websocket")
    origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    token_in_query: bool = False
    # Whether a connection keeps the headers that it was opened with.
    keep_headers: bool = False
    compression: bool = False
    ping_interval_seconds: float = 25.0
    ping_timeout_seconds: float = 20.0
    join_timeout_seconds: float = 45.0
    body_timeout_seconds: float = 10.0
    refused_seconds: float = 5.0
    leave_seconds: float = 1.0
    probe_seconds: float = 10.0
    close_seconds: float = 1.0
    message_bytes: int = 64 * 1024
    buffer_bytes: int = 256 * 1024
    polling_packets: int = 256

    @property
    def connect_bytes(self) -> int:
        """The size of a packet before the first CONNECT is accepted: a token fits."""
        return min(_MAX_CONNECT_BYTES, self.message_bytes)

    @property
    def max_unsent_bytes(self) -> int:
        """The unsent bytes of a connection that the kernel may hold; more wait in this process.

        Otherwise it holds a megabyte and more for each slow client, and here updates can still be
        merged. 0 leaves it to the kernel.
        """
        return max(_MIN_UNSENT_BYTES, self.buffer_bytes // 8) if self.buffer_bytes < _MAX_INT else 0

    @property
    def clog_bytes(self) -> int:
        """The buffer size at which a client is clogged; one more write still fits the buffer."""
        return self.buffer_bytes // 4
