"""Timeouts and size limits of a client."""

from dataclasses import dataclass, field

from client_sdk.connection.backoff import BackoffConfig


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """The defaults suit a service that runs for months; times are in seconds."""

    # One connection attempt: DNS, TCP, TLS and handshake.
    connect_seconds: float = 10.0
    # The first connection, over all attempts.
    start_seconds: float = 15.0
    token_seconds: float = 10.0
    answer_seconds: float = 10.0
    # A connection on which nothing arrives for so long is lost; half-way the client sends a ping.
    silence_seconds: float = 12.0
    # A send or publish, over all the connections that it is retried on.
    send_seconds: float = 30.0
    close_seconds: float = 2.0
    # Per reader; messages that are replaced by the latest of their topic do not count.
    buffer_messages: int = 1000
    # Sends and publishes that wait for a reply.
    pending_messages: int = 10_000
    batch_messages: int = 500
    batch_bytes: int = 96 * 1024
    backoff: BackoffConfig = field(default_factory=BackoffConfig)
