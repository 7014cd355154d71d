"""Collects the counters and gauges of the server under stable names."""

import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from server.core.connections import ConnectionManager
from server.core.counters import Counters
from server.delivery import Hub
from server.ports import PresenceManager, SharedLimits
from server.services.market.publishing import PublishingService
from server.services.sessions.messages import SessionMessages
from server.services.sessions.notifications import Notifications
from server.services.sessions.service import SessionsService


@dataclass(frozen=True, slots=True)
class Statistics:
    """The sources of the numbers."""

    registry: ConnectionManager
    counters: Counters
    hub: Hub
    publishing: PublishingService
    presence: PresenceManager
    sessions: SessionsService
    messages: SessionMessages
    notifications: Notifications
    shared_limits: SharedLimits | None

    def refusals(self) -> dict[str, int]:
        """How many requests were refused, by code."""
        refused: Counter[str] = Counter()
        for (_, _, outcome), count in self.counters.events().items():
            if outcome != "ok":
                refused[outcome] += count
        return dict(refused)

    def snapshot(self) -> dict[str, int]:
        """The current numbers: six gauges, then counters that only increase."""
        registry = self.registry.stats()
        return {
            "connections": registry["connections"],
            "users": registry["users"],
            "topics": self.hub.topic_count,
            "sessions": self.presence.session_count,
            "lagging": len(self.hub.slow_consumers),
            "limits_alone": int(self.shared_limits is not None and self.shared_limits.is_degraded),
            "messages_in": self.publishing.published + self.messages.sent,
            "messages_out": self.hub.delivered,
            "refused": sum(self.refusals().values()),
            "dropped": self.sessions.local_presence.dropped_signals
            + self.notifications.store.dropped_count,
            "limits_local": self.counters.total("limits.local"),
            "merged": self.counters.total("delivery.merged"),
            "recovered": self.sessions.recovered,
            "topics_evicted": self.publishing.topics.evicted_count,
            "topics_refused": self.publishing.topics.refused_count,
        }


def memory_bytes() -> int | None:
    """The resident memory of this process; None on systems that do not say it."""
    if sys.platform != "linux":
        return None
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
