"""`SyncClient` gives the same results and errors as `Client`, and leaves no thread behind."""

import asyncio
import contextlib
import gc
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

import pytest

from client_sdk.config import ClientConfig
from client_sdk.connection.states import ClientState
from client_sdk.contract import (
    FeedState,
    Position,
    PriceMessage,
    Scope,
    SessionMessage,
    SessionSignal,
    Stream,
    TradesMessage,
    UserJoined,
    UserLeft,
)
from client_sdk.errors import (
    AuthenticationError,
    ClientClosed,
    FloorcastError,
    NotConnected,
    PublishConflict,
    SendTimeout,
    ServerUnavailable,
    SessionError,
    TopicError,
)
from client_sdk.market.live_book import BookStatus
from client_sdk.reading.gaps import Gap
from client_sdk.sync.client import SyncClient
from client_sdk.sync.portal import Portal, WouldDeadlock
from tests.kit.clients.sdk import abort_connections
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.in_process import PRICE, RunningServer, running

BOOK: Mapping[str, object] = {"bids": [["10.0", "1"]], "asks": [["10.5", "5"]]}


@dataclass(frozen=True, slots=True)
class ServerThread:
    """A server in its own thread, so that a test can block."""

    portal: Portal
    running: RunningServer

    def client(self, user: str = "ann") -> SyncClient:
        return SyncClient(self.running.url, self.running.token(user))

    def publish(self, topic: str, data: Mapping[str, object], kind: str = "update") -> None:
        publishing = self.running.server.market.publishing
        self.portal.call(publishing.publish(topic, data, kind=kind))

    def until_empty(self) -> None:
        self.portal.call(self.running.until_empty())


@pytest.fixture(name="node")
def new_server_thread() -> Iterator[ServerThread]:
    before = threading.enumerate()
    portal = Portal("test-server")
    stack = contextlib.AsyncExitStack()
    started = portal.call(stack.enter_async_context(running()))
    yield ServerThread(portal, started)
    portal.call(started.until_empty())
    portal.call(stack.aclose())
    portal.close()
    assert threading.enumerate() == before


def trade(number: int) -> dict[str, object]:
    return {"trades": [{"id": number, "price": "1.0", "qty": "1", "side": "buy", "ts": number}]}


def threads() -> list[str]:
    return [each.name for each in threading.enumerate()]


def test_prices_are_read_in_a_plain_loop(node: ServerThread) -> None:
    node.publish("PRICE:A", PRICE)
    with node.client() as client:
        for tick in client.market.prices("A"):
            assert (tick.symbol, tick.data.last) == ("A", "1.01")
            break
        assert client.stats.received >= 0
    assert client.state is ClientState.CLOSED
    assert "floorcast-sync" not in threads()


def test_published_messages_are_read_in_order(node: ServerThread) -> None:
    with node.client() as client, client.market.trades("A") as trades:
        positions = [client.market.publish("TRADES:A", trade(number)) for number in range(1, 6)]
        read = [next(trades) for _ in range(5)]
        assert [each.seq for each in read if isinstance(each, TradesMessage)] == [1, 2, 3, 4, 5]
        assert [each.seq for each in positions] == [1, 2, 3, 4, 5]
        assert trades.position("TRADES:A") == Position(epoch=positions[0].epoch, seq=5)


def test_one_stream_reads_several_topics(node: ServerThread) -> None:
    with node.client() as client, client.market.stream("PRICE:A", "USER_DATA") as stream:
        node.publish("PRICE:A", PRICE)
        client.market.publish("USER_DATA", {"x": 1}, user="ann")
        read = [next(stream), next(stream)]
        streams = {each.stream for each in read if not isinstance(each, Gap)}
        assert streams == {Stream.PRICE, Stream.USER_DATA}


def test_book_is_read_as_a_state_or_by_property(node: ServerThread) -> None:
    node.publish("ORDERBOOK:A", BOOK, "snapshot")
    with node.client() as client, client.market.book("A") as book:
        now = next(book)
        assert (now.symbol, now.status, now.mid) == ("A", BookStatus.LIVE, Decimal("10.25"))
        assert (now.best_bid, now.best_ask) == (Decimal("10.0"), Decimal("10.5"))
        assert book.now == now
        single = (book.symbol, book.status, book.bids, book.asks, book.mid, book.position)
        assert single == (now.symbol, now.status, now.bids, now.asks, now.mid, now.position)
        assert (book.best_bid, book.best_ask, book.resyncs) == (now.best_bid, now.best_ask, 0)
        assert book.checksum() == zlib.crc32(b"10.0:1:10.5:5")
        client.market.publish("ORDERBOOK:A", {"bids": [], "asks": [["10.5", "0"]]})
        states = iter(book)
        assert (next(states).best_ask, now.best_ask) == (None, Decimal("10.5"))
        client.market.publish("ORDERBOOK:A", {"bids": [["10.0", "0"]], "asks": []})
        assert next(states).best_bid is None
        book.ready()
        book.close()
        assert list(book) == []


def test_session_messages_are_read_in_order(node: ServerThread) -> None:
    with (
        node.client() as client,
        client.session.join("room", metadata={"about": "x"}) as room,
        room.messages() as messages,
    ):
        sent = [room.send({"text": str(number)}) for number in range(3)]
        read = [next(messages) for _ in range(3)]
        assert [each.id for each in read if isinstance(each, SessionMessage)] == [
            each.id for each in sent
        ]
        assert room.history(limit=2) == tuple(read[1:])
        again = room.messages(since=sent[1].position)
        assert next(again) == read[2]
        again.close()
        assert (room.id, room.metadata) == ("room", {"about": "x"})
        assert room.participants().participant_count == 1


def test_session_events_reach_stream_and_callback(node: ServerThread) -> None:
    received: list[object] = []
    with node.client() as ann, ann.session.join("room") as room, room.events() as events:
        callback = room.on_event(received.append)
        with node.client("bob") as bob, bob.session.join("room") as bob_session:
            bob_session.signal({"typing": True})
        kinds: list[type[object]] = [UserJoined, SessionSignal, UserLeft]
        assert [type(next(events)) for _ in kinds] == kinds
        wait_until(lambda: [type(each) for each in received] == kinds)
        assert callback.error is None
        callback.close()


def test_moderator_kicks_and_closes(node: ServerThread) -> None:
    scopes = [Scope.SESSION_JOIN, Scope.SESSION_MODERATE]
    moderator_token = node.running.token("boss", scopes=scopes)
    with SyncClient(node.running.url, moderator_token) as moderator, node.client() as ann:
        room, ann_session = moderator.session.join("room"), ann.session.join("room")
        assert room.kick("ann") == 1
        with pytest.raises(SessionError):
            ann_session.send({})
        assert room.end() == 1


def test_callbacks_run_until_closed(node: ServerThread) -> None:
    prices: list[object] = []
    messages: list[object] = []
    with node.client() as client, client.session.join("room") as room:
        callbacks = [client.market.on("PRICE:A", prices.append), room.on_message(messages.append)]
        node.publish("PRICE:A", PRICE)
        room.send({"text": "1"})
        wait_until(lambda: bool(prices and messages))
        for callback in callbacks:
            callback.close()
        room.send({"text": "2"})
        node.publish("PRICE:A", PRICE)
        assert client.market.status("PRICE:B") is None
        assert (len(prices), len(messages)) == (1, 1)


def test_status_callback_runs_until_removed(node: ServerThread) -> None:
    received: list[FeedState] = []
    node.publish("PRICE:A", PRICE)
    with node.client() as client, client.market.prices("A"):
        end = client.market.on_status(lambda status: received.append(status.state))
        node.portal.run(lambda: node.running.pass_time(11))
        wait_until(lambda: received == [FeedState.STALE])
        assert client.market.status("PRICE:A") is FeedState.STALE
        end()
        node.publish("PRICE:A", PRICE)
        wait_until(lambda: client.market.status("PRICE:A") is FeedState.LIVE)
        assert received == [FeedState.STALE]


def test_notification_callback_runs_until_removed(node: ServerThread) -> None:
    received: list[str] = []
    with node.client() as client, client.session.join("room"):
        end = client.session.on_notification(lambda notice: received.append(notice.event))
        notify = node.running.server.sessions.notifications.notify
        node.portal.call(notify("default", "ann", "paid", {}))
        wait_until(lambda: received == ["paid"])
        end()


def test_leaving_a_loop_ends_its_subscription(node: ServerThread) -> None:
    node.publish("PRICE:A", PRICE)
    with node.client() as client:
        for _ in client.market.prices("A"):
            break
        wait_until(lambda: node.running.residue()["subscriptions"] == 0)
        assert client.state is ClientState.ONLINE


def test_sync_client_raises_the_same_errors(node: ServerThread) -> None:
    with node.client() as client:
        with pytest.raises(TopicError):
            client.market.stream("NOISE:A")
        client.market.publish("TRADES:A", trade(1), id="one")
        with pytest.raises(PublishConflict) as caught:
            client.market.publish("TRADES:A", trade(2), id="one")
        assert caught.value.code == "publish.conflict"


def test_refused_client_leaves_no_thread(node: ServerThread) -> None:
    with pytest.raises(AuthenticationError), SyncClient(node.running.url, "no token"):
        pass
    assert "floorcast-sync" not in threads()


def test_start_without_a_server_times_out() -> None:
    config = ClientConfig(start_seconds=0.05)
    with pytest.raises(ServerUnavailable), SyncClient("http://127.0.0.1:9", config=config):
        pass
    assert "floorcast-sync" not in threads()


async def test_sync_client_works_inside_a_running_loop(node: ServerThread) -> None:
    node.publish("PRICE:A", PRICE)
    client = node.client().start()
    assert next(client.market.prices("A")).data.last == "1.01"
    client.close()


def test_ctrl_c_ends_a_waiting_loop_and_the_client(node: ServerThread) -> None:
    interrupter = threading.Timer(0.02, press_ctrl_c)

    def watch() -> None:
        with node.client() as client, client.market.prices("A") as prices:
            interrupter.start()
            next(prices)

    with pytest.raises(KeyboardInterrupt):
        watch()
    interrupter.join()
    assert "floorcast-sync" not in threads()


def test_ctrl_c_during_start_leaves_nothing_behind(
    node: ServerThread, caplog: pytest.LogCaptureFixture
) -> None:
    requested = threading.Event()

    async def token() -> str:
        requested.set()
        await asyncio.Event().wait()
        raise AssertionError

    def interrupt() -> None:
        requested.wait()
        press_ctrl_c()

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        SyncClient(node.running.url, token).start()
    interrupter.join()
    assert "floorcast-sync" not in threads()
    # An HTTP session that was not closed would log an error when collected.
    gc.collect()
    assert caplog.text == ""


def test_closing_the_client_ends_a_loop_in_another_thread(node: ServerThread) -> None:
    client = node.client().start()
    trades = client.market.trades("A")
    trades.ready()
    read: list[object] = []
    other = threading.Thread(target=lambda: read.extend(trades))
    other.start()
    client.market.publish("TRADES:A", trade(1))
    wait_until(lambda: len(read) == 1)
    client.close()
    other.join(MAX_WAIT_SECONDS)
    assert not other.is_alive()
    assert list(trades) == []


def test_state_callback_runs_on_the_callback_thread_until_removed(
    node: ServerThread,
) -> None:
    received: list[tuple[ClientState, str]] = []
    client = node.client().start()
    client.on_state(lambda state: received.append((state, threading.current_thread().name)))
    end = client.on_state(lambda state: received.append((state, "never")))
    end()
    client.close()
    assert received == [(ClientState.CLOSED, "floorcast-sync-callbacks")]
    assert "floorcast-sync-callbacks" not in threads()


def test_callback_may_publish(node: ServerThread) -> None:
    with node.client() as client, client.market.prices("B") as prices:

        def republish(item: object) -> None:
            assert isinstance(item, PriceMessage)
            client.market.publish("PRICE:B", {**PRICE, "last": item.data.last})

        client.market.on("PRICE:A", republish)
        client.market.publish("PRICE:A", {**PRICE, "last": "7"})
        assert prices.next(timeout=MAX_WAIT_SECONDS).data.last == "7"


def test_state_callback_may_call_the_client(node: ServerThread) -> None:
    positions: list[int] = []
    with node.client() as client:

        def publish(state: ClientState, reason: FloorcastError | None) -> None:
            if state is ClientState.ONLINE:
                positions.append(client.market.publish("PRICE:A", PRICE).seq)

        client.on_state(publish)
        node.portal.run(lambda: abort_connections(node.running))
        wait_until(lambda: positions == [1])


def test_callback_may_close_the_client(node: ServerThread) -> None:
    client = node.client().start()
    closed = threading.Event()

    def close(item: object) -> None:
        client.close()
        closed.set()

    client.market.on("PRICE:A", close)
    client.market.publish("PRICE:A", PRICE)
    assert closed.wait(MAX_WAIT_SECONDS)
    wait_until(lambda: "floorcast-sync-callbacks" not in threads())


def test_coroutine_callback_runs_on_the_loop(node: ServerThread) -> None:
    errors: list[str] = []
    with node.client() as client:

        async def wait(item: object) -> None:
            with pytest.raises(WouldDeadlock) as caught:
                client.market.publish("PRICE:B", PRICE)
            errors.append(caught.value.code)

        client.market.on("PRICE:A", wait)
        client.market.publish("PRICE:A", PRICE)
        wait_until(lambda: errors == ["client.would_deadlock"])


def test_timeout_ends_a_wait_and_loses_nothing(node: ServerThread) -> None:
    with (
        node.client() as client,
        client.market.trades("A") as trades,
        client.market.book("A") as book,
    ):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                trades.next(timeout=0.01)
        book.next()
        with pytest.raises(TimeoutError):
            book.next(timeout=0.01)
        client.market.publish("TRADES:A", trade(1), timeout=MAX_WAIT_SECONDS)
        item = trades.next(timeout=MAX_WAIT_SECONDS)
        assert not isinstance(item, Gap)
        trades.ready(timeout=MAX_WAIT_SECONDS)
        with pytest.raises(TimeoutError):
            client.wait_closed(timeout=0.01)
        with pytest.raises(SendTimeout):
            client.market.publish("TRADES:A", trade(2), timeout=0.0)


def test_forgotten_client_ends_with_a_warning_that_names_it(node: ServerThread) -> None:
    client = node.client().start()
    streams = [client.market.prices("A")]
    del client
    gc.collect()
    assert "floorcast-sync" in threads(), "the stream still uses it"
    with pytest.warns(ResourceWarning, match=f"<SyncClient of {node.running.url}> was not closed"):
        streams.clear()
    wait_until(lambda: "floorcast-sync" not in threads())


def test_client_that_is_open_at_exit_is_named(node: ServerThread) -> None:
    program = (
        "import sys; from client_sdk import SyncClient;"
        "client = SyncClient(sys.argv[1], sys.argv[2]).start()"
    )
    arguments = [sys.executable, "-W", "always", "-c", program, node.running.url]
    ended = subprocess.run(
        [*arguments, node.running.token()], capture_output=True, text=True, timeout=MAX_WAIT_SECONDS
    )
    assert f"<SyncClient of {node.running.url}> was not closed" in ended.stderr
    assert "Unclosed" not in ended.stderr
    assert ended.returncode == 0


def test_client_raises_before_start_and_after_close(node: ServerThread) -> None:
    client = node.client()
    assert client.state is ClientState.IDLE
    with pytest.raises(NotConnected):
        _ = client.market
    client.close()
    client.start()
    with pytest.raises(ClientClosed):
        client.start()
    client.close()
    client.close()
    with pytest.raises(ClientClosed):
        client.market.publish("PRICE:A", PRICE)


def test_token_function_can_block(node: ServerThread) -> None:
    def token() -> str:
        time.sleep(0.001)
        return node.running.token("ann", scopes=[Scope.MARKET_READ])

    with SyncClient(node.running.url, token) as client:
        assert client.state is ClientState.ONLINE


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until another thread has made the condition true."""
    ends_at = time.monotonic() + MAX_WAIT_SECONDS
    while not condition():
        assert time.monotonic() < ends_at, "timed out"
        time.sleep(0.001)
