"""The `/market` namespace: topic subscriptions and publishing."""

from client_sdk import contract
from client_sdk.contract import (
    MARKET_NAMESPACE,
    FetchCandles,
    ListInstruments,
    ListSubscriptions,
    Publish,
    Scope,
    Subscribe,
    Unsubscribe,
    WillRequest,
)
from server.core.log.entries import Position
from server.services import (
    Candles,
    ClientPublishing,
    Instruments,
    Recovery,
    SubscribingService,
    WillService,
)
from server.services.market.client_publishing import publish_reply
from server.services.market.past import Since, SinceTime
from server.services.market.subscribing import subscribe_result
from server.sockets.clients import JoinedClient
from server.sockets.context import NamespaceContext
from server.sockets.namespace import GuardedNamespace
from server.sockets.pipeline import Call, Reply, Route
from server.transport import OrderKeys


class MarketNamespace(GuardedNamespace):
    """Events of `/market`."""

    def __init__(
        self,
        context: NamespaceContext,
        recovery: Recovery,
        subscribing: SubscribingService,
        client_publishing: ClientPublishing,
        instruments: Instruments,
        candles: Candles,
        wills: WillService,
    ) -> None:
        super().__init__(
            MARKET_NAMESPACE,
            context,
            recovery,
            {
                "subscribe": Route(Subscribe, self._subscribe, items=_topic_count),
                "unsubscribe": Route(Unsubscribe, self._unsubscribe, items=_topic_count),
                "subscriptions": Route(ListSubscriptions, self._subscriptions),
                "instruments": Route(ListInstruments, self._list_instruments),
                "candles": Route(FetchCandles, self._fetch_candles),
                "publish": Route(
                    Publish, self._publish, items=_message_count, ordered_by=_published_topics
                ),
                "will": Route(WillRequest, self._will, items=_message_count),
            },
            anonymous_allowed=context.config.anonymous_market,
        )
        self._subscribing = subscribing
        self._client_publishing = client_publishing
        self._instruments = instruments
        self._candles = candles
        self._wills = wills

    async def attach_client(
        self, client: JoinedClient, session_id: str | None, *, numbered: bool
    ) -> None:
        self._subscribing.add_connection(
            client.connection_id, client.principal, client.link, numbered=numbered
        )

    async def end_forbidden(self, client: JoinedClient) -> Reply:
        topics = await self._subscribing.end_forbidden(client.connection_id, client.principal)
        return {"topics": topics} if topics else {}

    async def _subscribe(self, call: Call, request: Subscribe) -> Reply:
        principal = call.caller
        principal.require(Scope.MARKET_READ)
        topics = await self._subscribing.subscribe(
            call.connection_id,
            principal,
            request.topics,
            request.interval_ms,
            {topic: _since(each) for topic, each in request.since.items()},
            request.last,
        )
        matched = sum(int(str(each.get("matched", 0))) for each in topics.values())
        if matched > 1:
            # The request was counted as one topic for each pattern.
            self._context.event_limits.charge_items(call.connection_id, matched)
        return subscribe_result(topics)

    async def _unsubscribe(self, call: Call, request: Unsubscribe) -> Reply:
        principal = call.caller
        topics = await self._subscribing.unsubscribe(call.connection_id, principal, request.topics)
        return {"ok": True, "topics": topics}

    async def _subscriptions(self, call: Call, request: ListSubscriptions) -> Reply:
        return {"ok": True, "topics": self._subscribing.subscriptions(call.connection_id)}

    async def _list_instruments(self, call: Call, request: ListInstruments) -> Reply:
        principal = call.caller
        principal.require(Scope.MARKET_READ)
        if request.follow:
            self._instruments.follow(call.connection_id, principal, request.symbols, request.match)
        found, has_more = await self._instruments.find(
            principal, request.symbols, request.match, request.after
        )
        reply: Reply = {"ok": True, "instruments": [each.body() for each in found]}
        return {**reply, "has_more": True} if has_more else reply

    async def _fetch_candles(self, call: Call, request: FetchCandles) -> Reply:
        principal = call.caller
        principal.require(Scope.MARKET_READ)
        found = await self._candles.find(
            principal, request.symbol, request.interval, request.limit, request.before
        )
        return {"ok": True, **found.body()}

    async def _publish(self, call: Call, request: Publish) -> Reply:
        principal = call.caller
        return publish_reply(await self._client_publishing.publish(principal, request.messages))

    async def _will(self, call: Call, request: WillRequest) -> Reply:
        await self._wills.set(call.caller, request)
        return {"ok": True}


def _since(since: contract.Position | contract.SinceTime) -> Since:
    if isinstance(since, contract.SinceTime):
        return SinceTime(since.ts)
    return Position(since.epoch, since.seq)


def _topic_count(request: Subscribe | Unsubscribe) -> int:
    return len(request.topics)


def _message_count(request: Publish | WillRequest) -> int:
    return len(request.messages or ())


def _published_topics(request: Publish) -> OrderKeys:
    topics = (each.get("topic") for each in request.messages if isinstance(each, dict))
    return frozenset(each for each in topics if isinstance(each, str))
