"""Names all Redis keys and pub/sub channels; the keys of one channel share a hash tag."""

from hashlib import blake2b

from server.core.limits.keys import LimitKey

_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


class Keys:
    """Keys and pub/sub channels under one prefix."""

    __slots__ = ("_prefix", "_stem")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self._stem = self._prefix + b":{"

    def base(self, channel: str) -> bytes:
        """The pub/sub channel of a channel, which is also the prefix of its keys."""
        # Escape braces: they would change the hash tag and spread the keys over shards.
        return self._stem + channel.translate(_ESCAPES).encode() + b"}"

    def schema(self) -> bytes:
        """A hash: the newest schema of the releases that use this prefix."""
        return self._prefix + b":schema"

    def node(self, node: str) -> bytes:
        """The pub/sub channel for direct messages to one node and for its own probes."""
        return self._prefix + b":node:" + node.encode()

    def saved_connection(self, name: str) -> bytes:
        """A string that expires: a parked connection saved by a node that stopped."""
        return self._prefix + b":recovery:saved:" + name.encode()

    def connection_node(self, name: str) -> bytes:
        """A string that expires: the node that holds a connection another node created."""
        return self._prefix + b":recovery:moved:" + name.encode()

    def occupancy(self) -> bytes:
        """What all keys of occupancy, wills and the queue of hooks begin with: one hash tag."""
        return self.base("occupancy")

    def nodes(self) -> bytes:
        """A hash: the last heartbeat of each node."""
        return self._prefix + b":nodes"

    def node_sessions(self, node: str) -> bytes:
        """A set: the sessions in which a node has connections or pending expiries."""
        return self.node(node) + b":sessions"

    def sessions(self) -> bytes:
        """A set: all sessions."""
        return self._prefix + b":sessions"

    def topics(self) -> bytes:
        """A sorted set: all topics with their owners, by the time of their last check."""
        return self._prefix + b":topics"

    def org_topics(self, org: str) -> bytes:
        """A sorted set: the topics of an org."""
        return self.base(f"org@{org}") + b":topics"

    def publisher_topics(self, org: str, user_id: str) -> bytes:
        """A sorted set: the topics of a publisher."""
        return self.base(f"user@{len(org)}:{org}:{user_id}") + b":topics"

    def org_sessions(self, org: str) -> bytes:
        """A set: the sessions of an org."""
        return self.base(f"org@{org}") + b":sessions"

    def user_sessions(self, org: str, user_id: str) -> bytes:
        """A set: the sessions that a user created."""
        return self.base(f"user@{len(org)}:{org}:{user_id}") + b":made"

    def kept(self, kind: str) -> tuple[bytes, bytes]:
        """A hash of the kept values of a kind, and a sorted set of their keys by expiry."""
        base = self.base(kept_channel(kind))
        return base + b":values", base + b":expiry"

    def connection_counts(self, key: LimitKey) -> bytes:
        """A hash: the number of connections of an address or user, per node."""
        if isinstance(key, str):
            return self.base(f"address@{key}") + b":places"
        org, user_id = key
        return self.base(f"user@{len(org)}:{org}:{user_id}") + b":places"


def channel_of_key(key: bytes) -> str | None:
    """The channel whose keys have this base; None if it is no channel's."""
    _, braced, rest = key.partition(b":{")
    if not braced or not rest.endswith(b"}"):
        return None
    text = rest[:-1].decode()
    for character, escaped in (("}", "%7D"), ("{", "%7B"), ("%", "%25")):
        text = text.replace(escaped, character)
    return text


def kept_channel(kind: str) -> str:
    """The pub/sub channel of a kind of kept values."""
    return f"kept@{kind}"


def head_key(base: bytes) -> bytes:
    """A hash: the channel's head, its newest entry, and the full state of a book."""
    return base + b":head"


def log_key(base: bytes) -> bytes:
    """A stream: the history, with each entry's seq as its id."""
    return base + b":log"


def session_keys(base: bytes) -> list[bytes]:
    """The keys of a session: facts (hash), users (hash), connections (hash), disconnected users
    by the end of their grace period (sorted set), then the head and log of its channel, and its
    newest events (stream).
    """
    parts = (b":room", b":users", b":seats", b":lost")
    return [*(base + each for each in parts), head_key(base), log_key(base), base + b":events"]


def claim_key(base: bytes, key: str) -> bytes:
    """A string that expires: the position of the message published under an idempotency key."""
    return base + b":claim:" + blake2b(key.encode(), digest_size=16).hexdigest().encode()


def notice_keys(base: bytes) -> list[bytes]:
    """The keys of critical notices: pending (hash), acknowledged (sorted set); the index of the
    pending ones: by name (sorted set), orgs by their next expiry, by number and by bytes (sorted
    sets), in total (hash). The names of each org by expiry are a sorted set of its own.
    """
    parts = (b":waiting", b":settled", b":names", b":orgs", b":counts", b":sizes", b":totals")
    return [base + each for each in parts]
