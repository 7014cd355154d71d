"""Call the HTTP API of a server in the process."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp.test_utils import TestClient

from client_sdk.contract import Scope
from server.app import SERVER, create_app
from server.settings import load_settings
from server.web.api.errors import ErrorAnswer
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.clock import ManualClock
from tests.kit.server.in_process import SECRET, RunningServer

# pytest-aiohttp's `aiohttp_client`.
StartClient = Callable[..., Awaitable[TestClient[Any, Any]]]
# The fixture `start_api`.
StartApi = Callable[..., Awaitable["ApiNode"]]

OPERATOR = tuple(Scope)


@dataclass(frozen=True, slots=True)
class ApiNode(RunningServer):
    """A server, and a client of its API."""

    http: TestClient[Any, Any]
    # The connections of clients, which `cut` ends.
    connected: list[RawClient | SessionClient] = field(default_factory=list)

    async def join_session(
        self, user: str, session_id: str | None = None, **token: Any
    ) -> SessionClient:
        """Connect a user to `/session`, and join a session at once if one is given."""
        client = await SessionClient.connect(self, user, session_id, **token)
        self.connected.append(client)
        return client

    async def join_market(self, user: str, **token: Any) -> RawClient:
        """Connect a user to `/market`."""
        client = await RawClient.connect(self.port, self.token(user, **token))
        self.connected.append(client)
        return client

    def cut(self) -> None:
        """Abort all connections of clients."""
        for each in self.connected:
            each.cut()

    async def call(
        self, method: str, path: str, *, status: int = 200, token: str | None = None, **options: Any
    ) -> Any:
        """Call the API with all scopes, or another token; returns the JSON of the answer."""
        authorization = f"Bearer {self.operator() if token is None else token}"
        headers = {"Authorization": authorization, **options.pop("headers", {})}
        async with self.http.request(
            method, f"/api/v1{path}", headers=headers, **options
        ) as response:
            assert response.status == status, await response.text()
            answer = await response.json()
        if status != 200:
            ErrorAnswer.model_validate(answer)
            assert answer["error"]["message"]
        return answer

    async def refusal(self, method: str, path: str, status: int, **options: Any) -> str:
        """Call the API; the code of the error that it answers with."""
        answer = await self.call(method, path, status=status, **options)
        code: str = answer["error"]["code"]
        return code

    def operator(self, user: str = "ops", **claims: Any) -> str:
        """A token with all scopes."""
        return self.token(user, scopes=OPERATOR, **claims)


async def open_api(start_client: StartClient, **options: Any) -> ApiNode:
    """Start a server with pytest-aiohttp's `aiohttp_client`.

    Settings are named as in a file, with `__` for the dot; other arguments are those of
    `create_app`.
    """
    settings = {name: options.pop(name) for name in list(options) if "__" in name}
    flags = {name.replace("__", "."): value for name, value in settings.items()}
    clock = options.pop("clock", None) or ManualClock()
    app = create_app(load_settings(flags={"auth.secret": SECRET, **flags}), clock=clock, **options)
    client = await start_client(app)
    assert client.port is not None
    return ApiNode(app[SERVER], "127.0.0.1", client.port, clock, client)
