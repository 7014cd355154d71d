"""What the server holds and has done, in numbers whose names stay."""

from dataclasses import dataclass

from server.core.connections import ConnectionManager
from server.core.counters import Counters
from server.delivery import Fanout
from server.ports import Assembly, Places
from server.services.market.publishing import PublishingService
from server.services.sessions.messages import Talking
from server.services.sessions.notifications import Notifications
from server.services.sessions.service import SessionsService


@dataclass(frozen=True, slots=True)
class Statistics:
    """Where the numbers come from."""

    registry: ConnectionManager
    counters: Counters
    fanout: Fanout
    publishing: PublishingService
    assembly: Assembly
    sessions: SessionsService
    talking: Talking
    notifications: Notifications
    places: Places | None

    def snapshot(self) -> dict[str, int]:
        """The numbers now: the first six are what is there, the others only rise."""
        registry = self.registry.stats()
        refused = sum(
            count for (_, _, outcome), count in self.counters.events().items() if outcome != "ok"
        )
        return {
            "connections": registry["connections"],
            "users": registry["users"],
            "topics": self.fanout.topic_count,
            "sessions": self.assembly.session_count,
            "lagging": len(self.fanout.laggards),
            "limits_alone": int(self.places is not None and self.places.alone),
            "messages_in": self.publishing.published + self.talking.sent,
            "messages_out": self.fanout.delivered,
            "refused": refused,
            "dropped": self.sessions.attendance.dropped + self.notifications.board.dropped_count,
            "limits_local": self.counters.total("limits.local"),
            "merged": self.counters.total("delivery.merged"),
            "recovered": self.sessions.recovered,
        }
