"""Names everything that Redis holds for us; what belongs to one channel shares a hash tag."""

from hashlib import blake2b

_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


class Keys:
    """All keys and pub/sub channels under one prefix."""

    __slots__ = ("_prefix", "_stem")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self._stem = self._prefix + b":{"

    def spoken(self, channel: str) -> bytes:
        """Where a channel's entries are told to the nodes; its keys begin with this."""
        # Braces would move the hash tag, and the keys of one channel to different shards.
        return self._stem + channel.translate(_ESCAPES).encode() + b"}"

    def node(self, node: str) -> bytes:
        """Where a node talks to itself."""
        return self._prefix + b":node:" + node.encode()


def head_of(spoken: bytes) -> bytes:
    """A hash: where the channel stands, its newest entry, and the whole state of a book."""
    return spoken + b":head"


def log_of(spoken: bytes) -> bytes:
    """A stream: the kept entries, their seq as their id."""
    return spoken + b":log"


def claim_of(spoken: bytes, key: str) -> bytes:
    """A string with an expiry: where a message went that was published under an id."""
    return spoken + b":claim:" + blake2b(key.encode(), digest_size=16).hexdigest().encode()
