"""The key of a user, one tuple for all parts that count or index the user's connections."""

from functools import lru_cache

User = tuple[str, str]


# While a client connects, half a dozen parts keep the same key: shared, it takes 72 bytes once.
@lru_cache(maxsize=128)
def user_key(org: str, user_id: str) -> User:
    """The org and the user id, which together identify a user."""
    return org, user_id
