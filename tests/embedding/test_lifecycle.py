"""The application's handlers of connects, disconnects, presence and sessions."""

import asyncio

import pytest

from floorcast.server import ClientEvent, Handlers, MemberEvent, UserEvent
from tests.kit.clients.session_client import SessionClient
from tests.kit.clients.wire import RawClient
from tests.kit.patience import until
from tests.kit.server.in_process import running


class Seen:
    """Records every event, as a line."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def connected(self, event: ClientEvent) -> None:
        self.lines.append(f"connected {event.namespace} {event.principal.user_id}")

    async def disconnected(self, event: ClientEvent) -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(0)
        self.lines.append(f"disconnected {event.namespace} {event.reason}")

    async def user_online(self, event: UserEvent) -> None:
        self.lines.append(f"online {event.org} {event.user_id}")

    def user_offline(self, event: UserEvent) -> None:
        self.lines.append(f"offline {event.org} {event.user_id}")

    def joined(self, event: MemberEvent) -> None:
        self.lines.append(f"joined {event.session_id} {event.user_id} {event.participant_count}")

    def left(self, event: MemberEvent) -> None:
        self.lines.append(f"left {event.session_id} {event.user_id} {event.participant_count}")

    def handlers(self) -> Handlers:
        return Handlers(
            connected=self.connected,
            disconnected=self.disconnected,
            user_online=self.user_online,
            user_offline=self.user_offline,
            joined=self.joined,
            left=self.left,
        )

    async def take(self, *lines: str) -> None:
        """Wait for exactly these lines."""
        await until(lambda: len(self.lines) >= len(lines))
        assert self.lines == list(lines)
        self.lines.clear()


async def test_handlers_get_the_events_in_order() -> None:
    seen = Seen()
    async with running(handlers=seen.handlers()) as node:
        client = await SessionClient.connect(node, "ann")
        await seen.take("online default ann", "connected /session ann")
        await client.call("join", session_id="room")
        await seen.take("joined room ann 1")
        await client.call("leave", session_id="room")
        client.client.cut()
        await seen.take("left room ann 0", "disconnected /session transport close")


async def test_user_is_offline_after_the_grace_time_without_connections() -> None:
    seen = Seen()
    async with running({"session.grace_seconds": 10}, handlers=seen.handlers()) as node:
        first = await RawClient.connect(node.port, node.token())
        second = await RawClient.connect(node.port, node.token())
        first.cut()
        await until(lambda: len(seen.lines) == 4)
        node.pass_time(11)
        second.cut()
        await until(lambda: len(seen.lines) == 5)
        node.pass_time(9)
        third = await RawClient.connect(node.port, node.token())
        third.cut()
        await until(lambda: len(seen.lines) == 7)
        seen.lines.clear()
        node.pass_time(9)
        await asyncio.sleep(0)
        assert seen.lines == []
        node.pass_time(2)
        await seen.take("offline default ann")


async def test_refused_client_is_in_no_event() -> None:
    seen = Seen()
    async with running({"limits.connections_per_user": 1}, handlers=seen.handlers()) as node:
        first = await RawClient.connect(node.port, node.token())
        await seen.take("online default ann", "connected /market ann")
        with pytest.raises(AssertionError):
            await RawClient.connect(node.port, node.token())
        first.cut()
        await until(lambda: len(seen.lines) == 1)


@pytest.mark.parametrize("failure", [KeyError("ann"), asyncio.CancelledError()])
async def test_failing_handler_is_logged_and_the_next_runs(
    failure: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()

    async def fail(event: UserEvent) -> None:
        raise failure

    handlers = Handlers(user_online=fail, connected=seen.connected)
    async with running(handlers=handlers) as node:
        client = await RawClient.connect(node.port, node.token())
        await seen.take("connected /market ann")
        assert not node.server.counters.total("tasks.failed")
        client.cut()
    assert "a lifecycle handler failed" in caplog.text


async def test_handlers_of_a_stopping_server_still_run() -> None:
    seen = Seen()
    async with running(handlers=Handlers(disconnected=seen.disconnected)) as node:
        client = await RawClient.connect(node.port, node.token())
    assert seen.lines == ["disconnected /market server.draining"]
    client.cut()
