"""Names everything that Redis holds for us; what belongs to one channel shares a hash tag."""

from hashlib import blake2b

from server.core.limits.keys import LimitKey

_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


class Keys:
    """All keys and pub/sub channels under one prefix."""

    __slots__ = ("_prefix", "_stem")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self._stem = self._prefix + b":{"

    def base(self, channel: str) -> bytes:
        """Where a channel's entries are told to the nodes; its keys begin with this."""
        # Braces would move the hash tag, and the keys of one channel to different shards.
        return self._stem + channel.translate(_ESCAPES).encode() + b"}"

    def node(self, node: str) -> bytes:
        """Where a node hears itself, and what others ask it."""
        return self._prefix + b":node:" + node.encode()

    def saved_connection(self, name: str) -> bytes:
        """A string with an expiry: a connection that waits to be had back, its node being gone."""
        return self._prefix + b":recovery:saved:" + name.encode()

    def connection_node(self, name: str) -> bytes:
        """A string with an expiry: the node that has a connection now which another has named."""
        return self._prefix + b":recovery:moved:" + name.encode()

    def nodes(self) -> bytes:
        """A hash: the last sign of life of each node that looks after sessions."""
        return self._prefix + b":nodes"

    def node_sessions(self, node: str) -> bytes:
        """A set: the sessions that a node looks after."""
        return self.node(node) + b":sessions"

    def sessions(self) -> bytes:
        """A set: every session that there is."""
        return self._prefix + b":sessions"

    def user_sessions(self, org: str, user_id: str) -> bytes:
        """A set: the sessions that a user has made."""
        return self.base(f"user@{len(org)}:{org}:{user_id}") + b":made"

    def connection_counts(self, key: LimitKey) -> bytes:
        """A hash: how many connections of an address or a user each node has."""
        if isinstance(key, str):
            return self.base(f"address@{key}") + b":places"
        org, user_id = key
        return self.base(f"user@{len(org)}:{org}:{user_id}") + b":places"


def head_key(base: bytes) -> bytes:
    """A hash: where the channel stands, its newest entry, and the whole state of a book."""
    return base + b":head"


def log_key(base: bytes) -> bytes:
    """A stream: the kept entries, their seq as their id."""
    return base + b":log"


def session_keys(base: bytes) -> list[bytes]:
    """Of a session: a hash of what it is, one of its users, one of their connections, and those
    users who have until some moment to come back; then its entries.
    """
    parts = (b":room", b":users", b":seats", b":lost")
    return [*(base + each for each in parts), head_key(base), log_key(base)]


def claim_key(base: bytes, key: str) -> bytes:
    """A string with an expiry: where a message went that was published under an id."""
    return base + b":claim:" + blake2b(key.encode(), digest_size=16).hexdigest().encode()
