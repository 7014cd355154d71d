"""A client that asks for its connection back, as the stock JavaScript client does."""

import json
from typing import Any

from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer

Event = tuple[str, Any]


class RecoveringClient:
    """One namespace of one client, over as many connections as it takes."""

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
        """Connect, with what it knows; the events that come between CONNECT and the welcome."""
        await self.open()
        return await self.connect_namespace(**auth)

    async def connect_and_cut(self) -> None:
        """Be back, and cut off again before anything that was missed has come."""
        await self.open()
        await self.send_connect({})
        assert self.recovered
        await self.cut()

    async def connect_namespace(self, **auth: object) -> list[Event]:
        """The same on the connection that is there."""
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
        """Send CONNECT, and read its answer: the stock client wants no event before that."""
        known = {} if self.pid is None else {"pid": self.pid}
        if self.offset is not None:
            known["offset"] = self.offset
        token = self.node.token(self.user, **self.token)
        packet = {"token": token, **self.auth, **known, **auth}
        self.wire.send(f"40{self.namespace},{json.dumps(packet)}")
        text = await self.wire.text()
        if text.startswith(f"44{self.namespace},"):
            raise PermissionError(json.loads(text[text.index("{") :])["data"]["code"])
        assert text.startswith(f"40{self.namespace},"), text
        answer = json.loads(text[text.index("{") :])
        self.recovered = answer.get("pid") is not None and answer["pid"] == self.pid
        self.sid, self.pid = answer["sid"], answer.get("pid")

    async def next(self) -> Event:
        """The next event; answers on the way are let go."""
        while not (text := await self.wire.text()).startswith(f"42{self.namespace},"):
            assert text == "2" or text.startswith("43"), text
        return self._record(text)

    async def call(self, event: str, **payload: object) -> Any:
        """Ask, and wait for the answer; events in between are let go, but not their offsets."""
        self.wire.send(f"42{self.namespace},7{json.dumps([event, payload])}")
        while not (text := await self.wire.text()).startswith(f"43{self.namespace},7"):
            self._record(text)
        return json.loads(text[text.index("[") :])[0]

    async def cut(self) -> None:
        """Be cut off, and wait until the server knows."""
        [client, self.client] = [self.wire, None]
        client.cut()
        peers = self.node.server.context
        await until(lambda: peers.find_client(self.sid) is None)

    def _record(self, text: str) -> Event:
        start = text.index("[")
        event, body, *offset = json.loads(text[start:])
        if offset and isinstance(offset[-1], str):
            self.offset = offset[-1]
        return event, body
