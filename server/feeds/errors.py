"""The error of a feed that cannot be opened or cannot continue."""


class FeedError(ValueError):
    """The name, the options or the recording of a feed is invalid; the message says which."""
