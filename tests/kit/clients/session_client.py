"""A member of sessions over a real socket, who forgets nothing of what it hears."""

import json
from typing import Any

from tests.kit.clients.wire import RawClient
from tests.kit.server.in_process import Running
from tests.kit.server.workers import Workers


class Member:
    """One connection to `/session`."""

    def __init__(self, client: RawClient, welcome: dict[str, Any]) -> None:
        self.client = client
        self.welcome = welcome
        self.heard: list[tuple[str, Any]] = []
        # Numbers of the packets that the server wants to be acknowledged, by notice id.
        self.asked: dict[str, int] = {}

    @staticmethod
    async def come(
        floor: Running | Workers, user: str, session_id: object = None, **token: Any
    ) -> "Member":
        """Connect, and join at once where a session is named."""
        client = await RawClient.open(floor.port)
        await client.text()
        auth = {} if session_id is None else {"session_id": session_id}
        try:
            welcome = await client.join(floor.token(user, **token), namespace="/session", **auth)
        except BaseException:
            client.cut()
            raise
        return Member(client, welcome)

    async def call(self, event: str, **payload: Any) -> Any:
        """Send an event and wait for its answer; what comes meanwhile is kept."""
        self.client.send(f"42/session,7{json.dumps([event, payload])}")
        while True:
            text = await self.client.text()
            if text.startswith("43/session,7"):
                return json.loads(text[text.index("[") :])[0]
            self._keep(text)

    async def next(self, event: str) -> Any:
        """The next event of this name; others are kept."""
        while True:
            for index, (name, body) in enumerate(self.heard):
                if name == event:
                    del self.heard[index]
                    return body
            self._keep(await self.client.text())

    async def silence(self) -> list[tuple[str, Any]]:
        """What has come until now and nobody asked for, after one more answer."""
        await self.call("participants", session_id="nobody-is-here")
        heard, self.heard = self.heard, []
        return heard

    def acknowledge(self, notice_id: str) -> None:
        """Say that a notice has been seen."""
        self.client.send(f"43/session,{self.asked.pop(notice_id)}[]")

    def leave(self) -> None:
        """Close the namespace, as `socket.disconnect()` does."""
        self.client.send("41/session,")

    def cut(self) -> None:
        """Be cut off."""
        self.client.cut()

    def _keep(self, text: str) -> None:
        if text == "2":
            self.client.send("3")
            return
        assert text.startswith("42/session,"), text
        start = text.index("[")
        event, body = json.loads(text[start:])
        number = text[len("42/session,") : start]
        if number:
            self.asked[body["id"]] = int(number)
        self.heard.append((event, body))
