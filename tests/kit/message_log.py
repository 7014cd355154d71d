"""Record the messages of one topic or session by position, as senders and readers report them."""

PositionKey = tuple[str, int]


class MessageLog:
    """The messages of one topic or session by epoch and seq."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.messages: dict[PositionKey, object] = {}
        self.acknowledged_count = 0

    def acknowledge(self, position: PositionKey, message: object) -> None:
        """Record that the server acknowledged a message."""
        self.acknowledged_count += 1
        self.record(position, message)

    def record(self, position: PositionKey, message: object) -> None:
        """Record a message at a position; fail if another one was recorded there."""
        found = self.messages.setdefault(position, message)
        assert found == message, (self.name, position, found, message)

    def check_unique(self) -> None:
        """Check that no message has two positions in one epoch.

        A retry after a restart that lost the message's id gets a position in a new epoch.
        """
        by_epoch = [(epoch, message) for (epoch, _), message in self.messages.items()]
        assert len(set(by_epoch)) == len(by_epoch), self.name
