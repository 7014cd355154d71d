"""Recover a connection by hand, as the stock JavaScript client does."""

import json
from typing import Any

from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer

Event = tuple[str, Any]


class RecoveringClient:
    """One namespace of one client, over any number of connections.

    Socket.IO connection state recovery: CONNECT carries `pid` and the last `offset`.
    """

    def __init__(self, node: RunningServer, user: str, namespace: str, **token: Any) -> None:
        self.node = node
        self.user = user
        self.namespace = namespace
        self.token = token
        self.auth: dict[str, object] = {}
        self.sid = ""
        self.pid: str | None = None
        self.offset: str | None = None
        self.recovered = False
        self.welcome: dict[str, Any] = {}
        self.client: RawClient | None = None

    @property
    def wire(self) -> RawClient:
        assert self.client is not None
        return self.client

    async def connect(self, **auth: object) -> list[Event]:
        """Open a connection and connect the namespace; return the events before the welcome."""
        await self.open()
        return await self.connect_namespace(**auth)

    async def connect_and_cut(self) -> None:
        """Recover, and cut the connection before reading any missed event."""
        await self.open()
        await self.send_connect({})
        assert self.recovered
        await self.cut()

    async def connect_namespace(self, **auth: object) -> list[Event]:
        """Connect the namespace on the open connection; return the events before the welcome."""
        await self.send_connect(auth)
        missed: list[Event] = []
        while (event := await self.next())[0] != "welcome":
            missed.append(event)
        self.welcome = event[1]
        assert self.welcome["connection_id"] == self.sid
        return missed

    async def open(self) -> None:
        client = self.client = await RawClient.open(self.node.port)
        await client.text()

    async def send_connect(self, auth: dict[str, object]) -> None:
        """Send CONNECT and read its reply, which must precede all events.

        Raises PermissionError with the error code if the server refuses it.
        """
        self.wire.send(f"40{self.namespace},{json.dumps({**self.auth_packet(), **auth})}")
        text = await self.wire.text()
        if text.startswith(f"44{self.namespace},"):
            raise PermissionError(json.loads(text[text.index("{") :])["data"]["code"])
        assert text.startswith(f"40{self.namespace},"), text
        answer = json.loads(text[text.index("{") :])
        self.recovered = answer.get("pid") is not None and answer["pid"] == self.pid
        self.sid, self.pid = answer["sid"], answer.get("pid")

    def auth_packet(self) -> dict[str, object]:
        """What a stock client sends in CONNECT."""
        known = {} if self.pid is None else {"pid": self.pid}
        if self.offset is not None:
            known["offset"] = self.offset
        return {"token": self.node.token(self.user, **self.token), **self.auth, **known}

    async def next(self) -> Event:
        """The next event; replies in between are dropped."""
        while not (text := await self.wire.text()).startswith(f"42{self.namespace},"):
            assert text == "2" or text.startswith("43"), text
        return self._record(text)

    async def call(self, event: str, **payload: object) -> Any:
        """Send an event and return its ack; events in between are dropped, their offsets kept."""
        self.wire.send(f"42{self.namespace},7{json.dumps([event, payload])}")
        while not (text := await self.wire.text()).startswith(f"43{self.namespace},7"):
            self._record(text)
        return json.loads(text[text.index("[") :])[0]

    async def cut(self) -> None:
        """Abort the connection, and wait until the server has removed the client."""
        [client, self.client] = [self.wire, None]
        client.cut()
        peers = self.node.server.clients.context
        await until(lambda: peers.find_client(self.sid) is None)

    def _record(self, text: str) -> Event:
        start = text.index("[")
        event, body, *offset = json.loads(text[start:])
        if offset and isinstance(offset[-1], str):
            self.offset = offset[-1]
        return event, body


async def market_client(
    node: RunningServer, *topics: str, user: str = "ann", **token: Any
) -> RecoveringClient:
    """Connect to `/market` and subscribe to the topics."""
    client = RecoveringClient(node, user, "/market", **token)
    assert await client.connect() == []
    if topics:
        await client.call("subscribe", topics=list(topics))
    return client


async def publish_trades(node: RunningServer, *ids: int, symbol: str = "A") -> None:
    """Publish one trade for each id."""
    for number in ids:
        trade = {"id": number, "price": "1", "qty": "1", "side": "buy", "ts": 1}
        await node.server.market.publishing.publish(f"TRADES:{symbol}", {"trades": [trade]})


def trade_ids(events: list[Event]) -> list[int]:
    """The ids of the trades among these events."""
    return [body["data"]["trades"][0]["id"] for event, body in events if event == "trades"]
