"""The client without await: the same answers and errors, and no thread left behind."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from client_sdk.config import ClientConfig
from client_sdk.contract import Position, Scope, Stream
from client_sdk.errors import (
    AuthenticationError,
    ClientClosed,
    NotConnected,
    PublishConflict,
    ServerUnavailable,
    TopicError,
)
from client_sdk.models import TradesMessage
from client_sdk.portal import Portal, WouldDeadlock
from client_sdk.states import ClientState
from client_sdk.sync import SyncClient
from tests.kit.running import PRICE, Running, running


@dataclass(frozen=True, slots=True)
class Floor:
    """A server that lives in a thread, so that a test may block."""

    portal: Portal
    running: Running

    def client(self, user: str = "ann") -> SyncClient:
        return SyncClient(self.running.url, self.running.token(user))

    def publish(self, topic: str, data: Mapping[str, object]) -> None:
        self.portal.call(self.running.server.publishing.publish(topic, data))

    def until_empty(self) -> None:
        self.portal.call(self.running.until_empty())


@pytest.fixture(name="floor")
def new_floor() -> Iterator[Floor]:
    before = threading.enumerate()
    portal = Portal("test-server")
    stack = contextlib.AsyncExitStack()
    there = portal.call(stack.enter_async_context(running()))
    yield Floor(portal, there)
    portal.call(there.until_empty())
    portal.call(stack.aclose())
    portal.close()
    assert threading.enumerate() == before


def deal(number: int) -> dict[str, object]:
    return {"trades": [{"id": number, "price": "1.0", "qty": "1", "side": "buy", "ts": number}]}


def threads() -> list[str]:
    return [each.name for each in threading.enumerate()]


def test_prices_are_read_in_a_plain_loop(floor: Floor) -> None:
    floor.publish("PRICE:A", PRICE)
    with floor.client() as client:
        for tick in client.market.prices("A"):
            assert (tick.symbol, tick.data.last) == ("A", "1.01")
            break
        assert client.stats.received >= 0
    assert client.state is ClientState.CLOSED
    assert "floorcast-sync" not in threads()


def test_what_is_published_is_read_in_order(floor: Floor) -> None:
    with floor.client() as client, client.market.trades("A") as trades:
        positions = [client.market.publish("TRADES:A", deal(number)) for number in range(1, 6)]
        read = [next(trades) for _ in range(5)]
        assert [each.seq for each in read if isinstance(each, TradesMessage)] == [1, 2, 3, 4, 5]
        assert [each.seq for each in positions] == [1, 2, 3, 4, 5]
        assert trades.position("TRADES:A") == Position(epoch=positions[0].epoch, seq=5)


def test_any_topics_are_one_stream(floor: Floor) -> None:
    with floor.client() as client, client.market.stream("PRICE:A", "USER_DATA") as stream:
        floor.publish("PRICE:A", PRICE)
        client.market.publish("USER_DATA", {"x": 1}, user="ann")
        assert {
            each.stream for each in (next(stream), next(stream)) if hasattr(each, "stream")
        } == {
            Stream.PRICE,
            Stream.USER_DATA,
        }


def test_leaving_a_loop_ends_its_subscription(floor: Floor) -> None:
    floor.publish("PRICE:A", PRICE)
    with floor.client() as client:
        for _ in client.market.prices("A"):
            break
        until(lambda: floor.running.residue()["subscriptions"] == 0)
        assert client.state is ClientState.ONLINE


def test_errors_are_those_of_the_async_client(floor: Floor) -> None:
    with floor.client() as client:
        with pytest.raises(TopicError):
            client.market.stream("NOISE:A")
        client.market.publish("TRADES:A", deal(1), id="one")
        with pytest.raises(PublishConflict) as caught:
            client.market.publish("TRADES:A", deal(2), id="one")
        assert caught.value.code == "publish.conflict"


def test_a_refused_client_leaves_no_thread(floor: Floor) -> None:
    with pytest.raises(AuthenticationError), SyncClient(floor.running.url, "no token"):
        pass
    assert "floorcast-sync" not in threads()


def test_a_server_that_is_not_there_is_an_error_in_time() -> None:
    config = ClientConfig(start_seconds=0.05)
    with pytest.raises(ServerUnavailable), SyncClient("http://127.0.0.1:9", config=config):
        pass
    assert "floorcast-sync" not in threads()


async def test_it_works_in_a_notebook_where_a_loop_runs_already(floor: Floor) -> None:
    floor.publish("PRICE:A", PRICE)
    client = floor.client().start()
    assert next(client.market.prices("A")).data.last == "1.01"
    client.close()


def test_ctrl_c_ends_a_loop_that_waits_and_the_client_with_it(floor: Floor) -> None:
    interrupter = threading.Timer(0.02, press_ctrl_c)

    def watch() -> None:
        with floor.client() as client, client.market.prices("A") as prices:
            interrupter.start()
            next(prices)

    with pytest.raises(KeyboardInterrupt):
        watch()
    interrupter.join()
    assert "floorcast-sync" not in threads()


def test_a_loop_in_another_thread_ends_when_the_client_is_closed(floor: Floor) -> None:
    client = floor.client().start()
    trades = client.market.trades("A")
    trades.ready()
    read: list[object] = []
    other = threading.Thread(target=lambda: read.extend(trades))
    other.start()
    client.market.publish("TRADES:A", deal(1))
    until(lambda: len(read) == 1)
    client.close()
    other.join(2)
    assert not other.is_alive()
    assert list(trades) == []


def test_states_are_told_on_the_thread_of_the_client_until_that_is_ended(floor: Floor) -> None:
    told: list[tuple[ClientState, str]] = []
    client = floor.client().start()
    client.on_state(lambda state: told.append((state, threading.current_thread().name)))
    end = client.on_state(lambda state: told.append((state, "never")))
    end()
    client.close()
    assert told == [(ClientState.CLOSED, "floorcast-sync")]


def test_a_callback_that_waits_for_the_client_is_told_so(floor: Floor) -> None:
    errors: list[str] = []
    client = floor.client().start()

    def wait(state: ClientState) -> None:
        with pytest.raises(WouldDeadlock) as caught:
            client.market.publish("PRICE:A", PRICE)
        errors.append(caught.value.code)

    client.on_state(wait)
    client.close()
    assert errors == ["client.would_deadlock"]


def test_a_client_is_used_between_its_start_and_its_end(floor: Floor) -> None:
    client = floor.client()
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


def test_a_token_may_come_from_a_function_that_blocks(floor: Floor) -> None:
    def token() -> str:
        time.sleep(0.001)
        return floor.running.token("ann", scopes=[Scope.MARKET_READ])

    with SyncClient(floor.running.url, token) as client:
        assert client.state is ClientState.ONLINE


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread has still to do; fails the test after two seconds."""
    ends_at = time.monotonic() + 2
    while not condition():
        assert time.monotonic() < ends_at, "it never was so"
        time.sleep(0.001)
