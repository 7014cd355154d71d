"""What goes wrong before there is anything to publish to."""


class BrokerError(Exception):
    """The broker cannot be reached, or will not have us."""
