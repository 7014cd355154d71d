"""Names everything that Redis holds for us; what belongs to one channel shares a hash tag."""

from hashlib import blake2b

from server.core.limits.keys import Holder

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
        """Where a node hears itself, and what others ask it."""
        return self._prefix + b":node:" + node.encode()

    def saved(self, name: str) -> bytes:
        """A string with an expiry: a connection that waits to be had back, its node being gone."""
        return self._prefix + b":recovery:saved:" + name.encode()

    def moved(self, name: str) -> bytes:
        """A string with an expiry: the node that has a connection now which another has named."""
        return self._prefix + b":recovery:moved:" + name.encode()

    def nodes(self) -> bytes:
        """A hash: the last sign of life of each node that looks after sessions."""
        return self._prefix + b":nodes"

    def duties(self, node: str) -> bytes:
        """A set: the sessions that a node looks after."""
        return self.node(node) + b":sessions"

    def sessions(self) -> bytes:
        """A set: every session that there is."""
        return self._prefix + b":sessions"

    def made(self, org: str, user_id: str) -> bytes:
        """A set: the sessions that a user has made."""
        return self.spoken(f"user@{len(org)}:{org}:{user_id}") + b":made"

    def places(self, holder: Holder) -> bytes:
        """A hash: how many connections of an address or a user each node has."""
        if isinstance(holder, str):
            return self.spoken(f"address@{holder}") + b":places"
        org, user_id = holder
        return self.spoken(f"user@{len(org)}:{org}:{user_id}") + b":places"


def head_of(spoken: bytes) -> bytes:
    """A hash: where the channel stands, its newest entry, and the whole state of a book."""
    return spoken + b":head"


def log_of(spoken: bytes) -> bytes:
    """A stream: the kept entries, their seq as their id."""
    return spoken + b":log"


def gathering_of(spoken: bytes) -> list[bytes]:
    """Of a session: a hash of what it is, one of its users, one of their connections, and those
    users who have until some moment to come back; then its entries.
    """
    parts = (b":room", b":users", b":seats", b":lost")
    return [*(spoken + each for each in parts), head_of(spoken), log_of(spoken)]


def claim_of(spoken: bytes, key: str) -> bytes:
    """A string with an expiry: where a message went that was published under an id."""
    return spoken + b":claim:" + blake2b(key.encode(), digest_size=16).hexdigest().encode()
