"""What a feed says that cannot be opened or cannot go on."""


class FeedError(ValueError):
    """The name, the options or the recording of a feed make no sense; the text says which."""
