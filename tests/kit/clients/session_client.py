"""Connect to `/session` over a real socket, and keep every received event."""

import json
from typing import Any

from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import RunningServer
from tests.kit.server.workers import Workers


class SessionClient:
    """One connection to `/session`."""

    def __init__(self, client: RawClient, welcome: dict[str, Any]) -> None:
        self.client = client
        self.welcome = welcome
        self.events: list[tuple[str, Any]] = []
        # Ack ids of the packets that the server wants acknowledged, by notice id.
        self.ack_ids: dict[str, int] = {}

    @staticmethod
    async def connect(
        node: RunningServer | Workers, user: str, session_id: object = None, **token: Any
    ) -> "SessionClient":
        """Connect, and join `session_id` at once if it is given."""
        client = await RawClient.open(node.port)
        await client.text()
        auth = {} if session_id is None else {"session_id": session_id}
        try:
            welcome = await client.join(node.token(user, **token), namespace="/session", **auth)
        except BaseException:
            client.cut()
            raise
        return SessionClient(client, welcome)

    async def call(self, event: str, **payload: Any) -> Any:
        """Send an event and return its ack; events in between are kept."""
        self.client.send(f"42/session,7{json.dumps([event, payload])}")
        while True:
            text = await self.client.text()
            if text.startswith("43/session,7"):
                return json.loads(text[text.index("[") :])[0]
            self.take_packet(text)

    async def next(self, event: str) -> Any:
        """The body of the next event of this name; other events are kept."""
        while True:
            for index, (name, body) in enumerate(self.events):
                if name == event:
                    del self.events[index]
                    return body
            self.take_packet(await self.client.text())

    async def pending_events(self) -> list[tuple[str, Any]]:
        """Take all unread events, after one more round trip."""
        await self.call("participants", session_id="empty")
        events, self.events = self.events, []
        return events

    def acknowledge(self, notice_id: str) -> None:
        """Acknowledge a notice."""
        self.client.send(f"43/session,{self.ack_ids.pop(notice_id)}[]")

    def leave(self) -> None:
        """Close the namespace, as `socket.disconnect()` does."""
        self.client.send("41/session,")

    def cut(self) -> None:
        """Abort the connection."""
        self.client.cut()

    def take_packet(self, text: str) -> None:
        if text == "2":
            self.client.send("3")
            return
        assert text.startswith("42/session,"), text
        start = text.index("[")
        event, body = json.loads(text[start:])
        number = text[len("42/session,") : start]
        if number:
            self.ack_ids[body["id"]] = int(number)
        self.events.append((event, body))
