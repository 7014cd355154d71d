"""The `/market` namespace: subscribing to topics, and publishing."""

from client_sdk.contract import (
    MARKET_NAMESPACE,
    ListSubscriptions,
    Publish,
    Scope,
    Subscribe,
    Unsubscribe,
)
from server.core.log.entries import Position
from server.core.recovery.tickets import Tickets
from server.services import Submissions, SubscribingService
from server.services.market.client_publishing import reply
from server.sockets.clients import Peer
from server.sockets.context import Floor
from server.sockets.namespace import FloorNamespace
from server.sockets.pipeline import Call, Reply, Route
from server.sockets.recovery import Crossing


class MarketNamespace(FloorNamespace):
    """Events of `/market`."""

    def __init__(
        self,
        floor: Floor,
        tickets: Tickets,
        crossing: Crossing,
        subscribing: SubscribingService,
        submissions: Submissions,
    ) -> None:
        super().__init__(
            MARKET_NAMESPACE,
            floor,
            tickets,
            {
                "subscribe": Route(Subscribe, self._subscribe),
                "unsubscribe": Route(Unsubscribe, self._unsubscribe),
                "subscriptions": Route(ListSubscriptions, self._subscriptions),
                "publish": Route(Publish, self._publish),
            },
            anonymous_allowed=floor.config.anonymous_market,
            crossing=crossing,
        )
        self._subscribing = subscribing
        self._submissions = submissions

    async def joined(self, peer: Peer, session_id: str | None, *, numbered: bool) -> bytes:
        self._subscribing.enter(peer.connection_id, peer.principal, peer.link, numbered=numbered)
        return b""

    def parked(self, connection_id: str) -> None:
        self._subscribing.park(connection_id)

    def resumed(self, peer: Peer, offset: str | None, first: bytes) -> bool:
        return self._subscribing.resume(
            peer.connection_id, peer.principal, peer.link, offset, first
        )

    async def left(self, connection_id: str, *, deliberate: bool) -> None:
        await self._subscribing.leave(connection_id)

    async def _subscribe(self, call: Call) -> Reply:
        request, principal = call.request, call.known
        assert isinstance(request, Subscribe)
        principal.require(Scope.MARKET_READ)
        topics = await self._subscribing.subscribe(
            call.connection_id,
            principal,
            request.topics,
            request.interval_ms,
            {topic: Position(each.epoch, each.seq) for topic, each in request.since.items()},
        )
        return {"ok": True, "topics": topics}

    async def _unsubscribe(self, call: Call) -> Reply:
        request, principal = call.request, call.known
        assert isinstance(request, Unsubscribe)
        topics = await self._subscribing.unsubscribe(call.connection_id, principal, request.topics)
        return {"ok": True, "topics": topics}

    async def _subscriptions(self, call: Call) -> Reply:
        return {"ok": True, "topics": self._subscribing.subscriptions(call.connection_id)}

    async def _publish(self, call: Call) -> Reply:
        request, principal = call.request, call.known
        assert isinstance(request, Publish)
        return reply(await self._submissions.submit(principal, request.messages))
