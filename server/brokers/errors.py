"""The error that a broker raises if it cannot start."""


class BrokerError(Exception):
    """The broker cannot be reached, or rejects this server's credentials."""
