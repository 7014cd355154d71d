"""Session messages are stored once and read once, through disconnects and restarts."""

import asyncio
from typing import Any

import pytest

from client_sdk import (
    BufferFull,
    Client,
    ClientState,
    ForbiddenError,
    Gap,
    GapReason,
    InvalidData,
    LimitExceeded,
    NotConnected,
    Notification,
    Position,
    PresenceChanged,
    SendTimeout,
    SessionError,
    SessionMessage,
    UserJoined,
    UserLeft,
)
from client_sdk.contract import Scope
from tests.kit.clients.sdk import abort_connections, client_of, config, no_leftover_tasks
from tests.kit.network.tcp_proxy import Proxy
from tests.kit.patience import MAX_WAIT_SECONDS, until
from tests.kit.server.in_process import RunningServer, running

MODERATOR = (Scope.SESSION_JOIN, Scope.SESSION_MODERATE)


async def read_numbers(stream: Any, count: int) -> list[object]:
    """The numbers in the next messages; a gap fails the test."""
    numbers = []
    async with asyncio.timeout(MAX_WAIT_SECONDS):
        for _ in range(count):
            item = await anext(stream)
            assert isinstance(item, SessionMessage)
            numbers.append(item.data["n"])
    return numbers


async def test_session_messages_reach_everybody_in_one_order() -> None:
    async with (
        running() as node,
        no_leftover_tasks(),
        client_of(node) as ann,
        client_of(node, node.token("bob")) as bob,
        ann.session.join("job:42", metadata={"kind": "test"}) as ann_session,
        bob.session.join("job:42") as bob_session,
    ):
        assert bob_session.metadata == {"kind": "test"}
        streams = [ann_session.messages(), bob_session.messages()]
        sent = [
            await each.send({"n": number})
            for number, each in enumerate((ann_session, bob_session, ann_session))
        ]
        assert [each.position.seq for each in sent] == [1, 2, 3]
        for stream in streams:
            assert await read_numbers(stream, 3) == [0, 1, 2]
        message = (await bob_session.history(limit=1))[0]
        assert (message.user_id, message.session_id, message.id) == ("ann", "job:42", sent[2].id)
        assert message.age < 5
        assert [each.seq for each in await bob_session.history(before_seq=3)] == [1, 2]
        assert (await ann_session.participants()).participant_count == 2


async def test_messages_start_at_the_join_position() -> None:
    async with running() as node, client_of(node) as client:
        async with client.session.join("s") as session:
            for number in range(3):
                await session.send({"n": number})
            assert await read_numbers(session.messages(), 3) == [0, 1, 2]
            here = session.messages().position("s")
            assert here is not None
            assert await read_numbers(session.messages(Position(epoch=here.epoch, seq=2)), 1) == [2]
        async with client.session.join("s", since=here) as again:
            assert await read_numbers(again.messages(), 3) == [0, 1, 2]


async def test_event_stream_yields_joins_leaves_and_signals() -> None:
    async with (
        running() as node,
        no_leftover_tasks(),
        client_of(node) as ann,
        client_of(node, node.token("bob")) as bob,
        ann.session.join("s") as ann_session,
    ):
        events = ann_session.events()
        called: list[object] = []
        callback = ann_session.on_event(called.append)
        async with bob.session.join("s") as bob_session:
            await bob_session.signal({"typing": True})
        received: list[object] = [await anext(events) for _ in range(3)]
        kinds = [type(each).__name__ for each in received]
        assert kinds == ["UserJoined", "SessionSignal", "UserLeft"]
        assert isinstance(received[0], UserJoined)
        assert received[0].participant_count == 2
        await until(lambda: len(called) == 3)
        callback.close()
        await events.aclose()
        assert [each async for each in events] == []


async def test_dropped_event_streams_are_released() -> None:
    async with (
        running() as node,
        client_of(node) as ann,
        client_of(node, node.token("bob")) as bob,
        ann.session.join("s") as ann_session,
        bob.session.join("s") as bob_session,
    ):
        for _ in range(3):
            events = ann_session.events()
            await bob_session.signal({"typing": True})
            await anext(events)
            del events
        assert len(ann_session._events) == 0


async def test_cancelled_join_leaves_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as node, client_of(node) as client, client.session.join("other"):
        sessions, going, joined = node.server.sessions.service, asyncio.Event(), asyncio.Event()
        join = sessions.join

        async def slowly(*args: Any, **options: Any) -> Any:
            going.set()
            await asyncio.sleep(0.01)
            answer = await join(*args, **options)
            joined.set()
            return answer

        monkeypatch.setattr(sessions, "join", slowly)
        joining = asyncio.ensure_future(client.session.join("s"))
        await going.wait()
        joining.cancel()
        await joined.wait()
        await until(lambda: len(sessions.memberships) == 1)
        # It can be joined again.
        async with client.session.join("s") as session:
            assert (await session.participants()).participant_count == 1


async def test_message_callback_gets_messages() -> None:
    async with (
        running() as node,
        no_leftover_tasks(),
        client_of(node) as client,
        client.session.join("s") as session,
    ):
        called: list[SessionMessage | Gap] = []
        session.on_message(called.append)
        await session.send({"n": 1})
        await until(lambda: len(called) == 1)


async def test_disconnects_neither_lose_nor_duplicate_messages() -> None:
    async with (
        running() as node,
        client_of(node) as ann,
        client_of(node, node.token("bob")) as bob,
        ann.session.join("s") as ann_session,
        bob.session.join("s") as bob_session,
    ):
        stream = bob_session.messages()
        for number in range(20):
            await ann_session.send({"n": number})
            if number % 5 == 0:
                abort_connections(node)
        assert await read_numbers(stream, 20) == list(range(20))
        assert bob.stats.gaps == 0


async def test_send_with_a_lost_reply_is_stored_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as node, client_of(node) as client, client.session.join("s") as session:
        publish = node.server.backend.broker.publish
        cuts: list[Any] = []

        async def publish_and_cut(*arguments: Any, **named: Any) -> Any:
            receipt = await publish(*arguments, **named)
            if not cuts:
                cuts.append(receipt)
                abort_connections(node)
            return receipt

        monkeypatch.setattr(node.server.backend.broker, "publish", publish_and_cut)
        sent = await session.send({"n": 1})
        assert sent.position == Position(epoch=cuts[0].position.epoch, seq=1)
        assert client.stats.reconnects == 1
        assert len(await session.history()) == 1


async def test_same_id_is_stored_once() -> None:
    async with running() as node, client_of(node) as client, client.session.join("s") as session:
        first = await session.send({"n": 1}, id="mine")
        assert first.id == "mine"
        assert await session.send({"n": 1}, id="mine") == first
        assert len(await session.history()) == 1


async def test_offline_sends_go_out_later_in_order() -> None:
    async with running() as node, client_of(node) as client, client.session.join("s") as session:
        abort_connections(node)
        await until(lambda: not session.gate.is_open)
        sent = await asyncio.gather(*(session.send({"n": number}) for number in range(10)))
        assert [each.position.seq for each in sent] == list(range(1, 11))
        assert await read_numbers(session.messages(), 10) == list(range(10))


async def test_sends_without_a_server_time_out_and_are_bounded() -> None:
    async with running() as node:
        client = client_of(node, send_seconds=0.05, pending_messages=2)
        await client.start()
        session = await client.session.join("s")
    await until(lambda: client.state is ClientState.OFFLINE)
    sends = [asyncio.create_task(session.send({"n": number})) for number in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(BufferFull) as full:
        await session.send({"n": 3})
    assert full.value.code == "client.buffer_full"
    for each in sends:
        with pytest.raises(SendTimeout) as late:
            await each
        assert late.value.code == "client.timeout"
    with pytest.raises(NotConnected) as offline:
        await session.signal({"n": 1})
    assert offline.value.code == "client.not_connected"
    await client.close()


async def test_server_restart_is_a_gap() -> None:
    async with running() as node:
        port = node.port
        client = client_of(node)
        await client.start()
        session = await client.session.join("s")
        await session.send({"n": 1})
        stream = session.messages()
        assert await read_numbers(stream, 1) == [1]
    async with running({"server.port": port}), no_leftover_tasks():
        await session.send({"n": 2})
        gap = await anext(stream)
        assert isinstance(gap, Gap)
        assert (gap.topic, gap.missed_from, gap.missed_to) == ("s", 2, None)
        assert gap.reason is GapReason.EPOCH
        await client.close()


async def test_slow_reader_catches_up_from_the_history() -> None:
    async with (
        running() as node,
        client_of(node, buffer_messages=3) as client,
        client.session.join("s") as session,
    ):
        stream = session.messages()
        await stream.ready()
        for number in range(30):
            await session.send({"n": number})
        assert await read_numbers(stream, 30) == list(range(30))


async def test_close_of_a_session_is_the_former_name_of_end() -> None:
    async with (
        running() as node,
        client_of(node, node.token("mod", scopes=MODERATOR)) as moderator,
        moderator.session.join("s") as session,
    ):
        with pytest.warns(DeprecationWarning, match="now called end"):
            assert await session.close() == 1


async def test_presence_that_changed_through_a_cut_is_reported() -> None:
    async with (
        running() as node,
        Proxy(node.port) as proxy,
        Client(proxy.url, node.token(), config=config()) as client,
        client_of(node, node.token("bob")) as bob,
        bob.session.join("s") as bobs,
    ):
        session = await client.session.join("s")
        events = session.events()
        proxy.refuse()
        proxy.cut_all()
        async with client_of(node, node.token("cid")) as cid, cid.session.join("s"):
            await bobs.leave()
            await proxy.accept()
            change = await anext(events)
            assert isinstance(change, PresenceChanged)
            assert {each.user_id for each in change.participants} == {"ann", "cid"}
            assert (change.session_id, change.participant_count) == ("s", 2)
            # A cut without a change reports nothing.
            proxy.cut_all()
            await until(lambda: client.stats.reconnects == 2)
            await session.participants()
        left = await anext(events)
        assert isinstance(left, UserLeft)
        assert left.user_id == "cid"


async def test_closed_session_ends_for_everybody() -> None:
    async with (
        running() as node,
        client_of(node, node.token("mod", scopes=MODERATOR)) as moderator,
        client_of(node) as client,
    ):
        moderated = await moderator.session.join("s")
        session = await client.session.join("s")
        stream = session.messages()
        await session.send({"n": 1})
        assert await moderated.end() == 2
        assert await read_numbers(stream, 1) == [1]
        with pytest.raises(SessionError) as closed:
            await anext(stream)
        assert closed.value.code == "session.closed"
        for again in (session.send({}), session.signal({})):
            with pytest.raises(SessionError):
                await again
        with pytest.raises(SessionError):
            session.messages()
        with pytest.raises(SessionError) as refused:
            await client.session.join("s")
        assert refused.value.code == "session.closed"
        await session.leave()


async def test_kicked_user_gets_the_reason() -> None:
    async with (
        running() as node,
        client_of(node, node.token("mod", scopes=MODERATOR)) as moderator,
        client_of(node) as client,
        moderator.session.join("s") as moderated,
    ):
        session = await client.session.join("s")
        stream = session.messages()
        assert await moderated.kick("ann") == 1
        with pytest.raises(SessionError) as kicked:
            await anext(stream)
        assert kicked.value.details == {"reason": "kicked"}
        with pytest.raises(ForbiddenError):
            async with client.session.join("s") as again:
                await again.kick("mod")


async def test_refused_session_request_raises_its_error() -> None:
    async with (
        running() as node,
        client_of(node, node.token(sessions=["mine:*"])) as client,
    ):
        with pytest.raises(ForbiddenError):
            await client.session.join("theirs:1")
        async with client.session.join("mine:1") as session:
            with pytest.raises(InvalidData):
                await session.send({"x": float("nan")})
            with pytest.raises(LimitExceeded) as caught:
                await session.send({"x": "y" * 100_000})
            assert caught.value.code == "limit.payload"
            with pytest.raises(LimitExceeded):
                await session.send({"x": "y" * 70_000})
            with pytest.raises(LimitExceeded):
                await session.send({"x": "価" * 50_000})
            # The connection survived all of it.
            assert (await session.send({"n": 1})).position.seq == 1
        assert client.stats.reconnects == 0


async def test_session_joined_twice_is_left_with_the_last_use() -> None:
    async with running() as node, client_of(node) as client:
        async with client.session.join("s") as first:
            async with client.session.join("s") as second:
                assert second is first
            await first.send({"n": 1})
        with pytest.raises(SessionError):
            await first.send({"n": 2})
        assert len(node.server.sessions.service.memberships) == 0
        await first.leave()


async def notify(node: RunningServer, *, critical: bool, identifier: str) -> int | None:
    """Notify ann; returns the number of devices reached."""
    outcome = await node.server.sessions.notifications.notify(
        "default", "ann", "margin.call", {"by": 5}, critical=critical, identifier=identifier
    )
    return outcome.reached


async def test_critical_notification_is_sent_until_acknowledged() -> None:
    async with running() as node, no_leftover_tasks(), client_of(node) as client:
        read: list[str] = []

        async def take(notice: Notification) -> None:
            read.append(notice.id)
            if len(read) == 1:
                raise RuntimeError("rejected by a test")

        end = client.session.on_notification(take)
        session = await client.session.join("s")
        assert await notify(node, critical=True, identifier="n1") == 1
        await until(lambda: read == ["n1"])
        abort_connections(node)
        await until(lambda: read == ["n1", "n1"])
        store = node.server.sessions.notifications.store
        await until(lambda: not store.pending("default", "ann"))
        abort_connections(node)
        await until(lambda: not session.gate.is_open)
        await until(lambda: session.gate.is_open)
        assert await notify(node, critical=False, identifier="n2") == 1
        await until(lambda: read == ["n1", "n1", "n2"])
        end()
        end()
        await notify(node, critical=False, identifier="n3")
        await client.market.publish("TRADES:A", {"trades": []})
        assert len(read) == 3


async def test_lost_session_message_is_fetched() -> None:
    async with running() as node, client_of(node) as client, client.session.join("s") as session:
        assert repr(session) == "<Session s>"
        stream = session.messages()
        for number in range(3):
            await session.send({"n": number})
        await until(lambda: client.stats.received == 3)
        # Pretend that the last two did not arrive.
        stream._reader._trackers["s"].seq = 1
        await session.send({"n": 3})
        assert await read_numbers(stream, 6) == [0, 1, 2, 1, 2, 3]
        assert client.stats.gaps_seen == 1


async def test_old_reader_gets_a_gap_and_recent_reader_none() -> None:
    settings = {"session.history.messages": 3}
    async with (
        running(settings) as node,
        client_of(node) as client,
        client.session.join("s") as session,
    ):
        for number in range(1, 11):
            sent = await session.send({"n": number})
        epoch = sent.position.epoch
        far = session.messages(Position(epoch=epoch, seq=1))
        near = session.messages(Position(epoch=epoch, seq=8))
        assert await read_numbers(near, 2) == [9, 10]
        gap = await anext(far)
        assert isinstance(gap, Gap)
        assert (gap.missed_from, gap.missed_to) == (2, 10)


async def test_old_reader_pages_what_is_too_much_for_a_reply() -> None:
    settings = {"delivery.backlog_messages": 40, "delivery.backlog_bytes": 1500}
    async with (
        running(settings) as node,
        client_of(node) as client,
        client_of(node, node.token("bob")) as bob,
        client.session.join("s") as session,
    ):
        for number in range(1, 201):
            sent = await session.send({"n": number})
        epoch = sent.position.epoch
        far = session.messages(Position(epoch=epoch, seq=3))
        near = session.messages(Position(epoch=epoch, seq=190))
        assert await read_numbers(near, 10) == list(range(191, 201))
        assert await read_numbers(far, 197) == list(range(4, 201))
        # The messages of others arrive while it pages.
        async with bob.session.join("s", since=Position(epoch=epoch, seq=1)) as old:
            numbers = asyncio.create_task(read_numbers(old.messages(), 249))
            for number in range(201, 251):
                await session.send({"n": number})
            assert await numbers == list(range(2, 251))
        assert client.stats.gaps == bob.stats.gaps == 0


async def test_new_reader_does_not_get_what_another_pages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client_sdk.sessions.session._PAGE_MESSAGES", 20)
    async with (
        running({"delivery.backlog_messages": 10}) as node,
        client_of(node) as ann,
        client_of(node, node.token("bob")) as bob,
        ann.session.join("s") as session,
    ):
        for number in range(1, 51):
            sent = await session.send({"n": number})
        since = Position(epoch=sent.position.epoch, seq=1)
        joined = await bob.session.join("s", since=since)
        joined.join_position = None
        old, new = joined.messages(since), joined.messages()
        assert await read_numbers(old, 49) == list(range(2, 51))
        await session.send({"n": 51})
        assert await read_numbers(new, 1) == [51]


async def test_many_sessions_are_rejoined_on_one_connection() -> None:
    async with running() as node, client_of(node) as client:
        sessions = [await client.session.join(f"s{number}") for number in range(10)]
        abort_connections(node)
        sent = await asyncio.gather(*(each.send({"n": 1}) for each in sessions))
        assert [each.position.seq for each in sent] == [1] * 10


async def test_cancelled_join_leaves_no_task() -> None:
    async with running() as node:
        client = Client("http://127.0.0.1:9", node.token())
        joining = asyncio.ensure_future(client.session.join("s"))
        await asyncio.sleep(0)
        joining.cancel()
        await asyncio.wait([joining])
        await client.close()
        assert not {each for each in asyncio.all_tasks() if "session" in each.get_name()}


async def test_narrower_token_ends_a_session_with_an_error() -> None:
    async with running() as node:
        tokens = [node.token(ttl_seconds=60)]
        async with client_of(node, lambda: tokens[-1]) as client:
            session = await client.session.join("s")
            stream = session.messages()
            tokens.append(node.token(sessions=["team:*"]))
            node.pass_time(31)
            with pytest.raises(ForbiddenError, match="the token no longer allows the session"):
                await anext(stream)
