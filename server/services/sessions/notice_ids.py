"""Remembers the ids of sent notices, so that a retry notifies nobody twice."""

from hashlib import blake2b

from client_sdk.contract import ErrorCode
from server.core.errors import RequestError
from server.core.sessions.notices import Notice
from server.ports import Clock, KeptValues

_KIND = "notice-ids"


class NoticeIds:
    """The ids of the notices that were sent with one, over all nodes, for some time.

    Two calls at the same time can both find an id unknown; a critical notice is then stored once.
    """

    def __init__(self, kept: KeptValues, clock: Clock, *, keep_seconds: float) -> None:
        self._kept = kept
        self._clock = clock
        self._keep_seconds = keep_seconds

    async def is_known(self, notice: Notice) -> bool:
        """Whether this notice was sent; raises `RequestError` if another one had its id."""
        known = await self._kept.get(_KIND, _key(notice))
        if known is not None and known != _digest(notice):
            raise RequestError(
                ErrorCode.PUBLISH_CONFLICT, "another notice was sent to this user under this id"
            )
        return known is not None

    async def remember(self, notice: Notice) -> None:
        """Remember that this notice was sent."""
        expires_at = self._clock.time() + self._keep_seconds
        await self._kept.put(_KIND, {_key(notice): _digest(notice)}, expires_at=expires_at)


def _key(notice: Notice) -> str:
    parts = (notice.org, notice.user_id, notice.id)
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _digest(notice: Notice) -> bytes:
    digest = blake2b(notice.event.encode() + b"\0" + notice.data, digest_size=16)
    return digest.hexdigest().encode()
