"""What a client can be told about times and sizes."""

from dataclasses import dataclass, field

from client_sdk.connection.backoff import BackoffConfig


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The defaults suit a service that runs for months; times are in seconds."""

    # For one attempt: name, TCP, TLS, handshake and joining.
    connect_seconds: float = 10.0
    # For the first connection, however many attempts it takes.
    start_seconds: float = 15.0
    token_seconds: float = 10.0
    answer_seconds: float = 10.0
    # For what is sent again after a lost connection: a send, a publish.
    send_seconds: float = 30.0
    close_seconds: float = 2.0
    # Of one reader; messages that only count as the latest of their topic do not count here.
    buffer_messages: int = 1000
    # Sends and publishes that wait for their answer.
    pending_messages: int = 10_000
    batch_messages: int = 500
    batch_bytes: int = 96 * 1024
    backoff: BackoffConfig = field(default_factory=BackoffConfig)
