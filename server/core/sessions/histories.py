"""The bounds of histories: sessions keep theirs longer than topics."""

from dataclasses import dataclass

from server.core.log.history import HistoryBounds
from server.core.sessions.records import is_session_channel

TOPICS = HistoryBounds()
SESSIONS = HistoryBounds(
    messages=10_000,
    bytes=8 * 1024 * 1024,
    seconds=30 * 86_400.0,
    replay_messages=1_000,
    replay_bytes=1024 * 1024,
)


@dataclass(frozen=True, slots=True)
class HistoryRules:
    """The bounds of each kind of channel."""

    topics: HistoryBounds = TOPICS
    sessions: HistoryBounds = SESSIONS

    def of(self, channel: str) -> HistoryBounds:
        """The bounds of a channel."""
        return self.sessions if is_session_channel(channel) else self.topics
