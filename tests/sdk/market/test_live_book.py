"""A live book against a real server: updates, mismatches, disconnects, restarts."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from client_sdk import BookState, BookStatus, Client, ClientState, ForbiddenError, LiveBook
from tests.kit.clients.sdk import abort_connections, client_of, no_leftover_tasks
from tests.kit.patience import until
from tests.kit.server.in_process import RunningServer, running


async def publish(node: RunningServer, bids: Any, asks: Any, kind: str = "") -> None:
    """Publish levels of book A; the first ones, with which the book begins, as a snapshot."""
    levels = {"bids": bids, "asks": asks}
    head = await node.server.backend.broker.head("ORDERBOOK:A")
    kind = kind or ("update" if head.seq else "snapshot")
    await node.server.market.publishing.publish("ORDERBOOK:A", levels, kind=kind)


def numbers(*levels: tuple[str, str]) -> list[tuple[Decimal, Decimal]]:
    return [(Decimal(price), Decimal(quantity)) for price, quantity in levels]


def is_at(book: LiveBook, seq: int) -> bool:
    return book.position is not None and book.position.seq == seq


async def test_live_book_starts_with_a_snapshot_and_follows_updates() -> None:
    async with running() as node, no_leftover_tasks(), client_of(node) as client:
        await publish(node, [["10.0", "1"], ["9.5", "2"]], [["10.5", "5"]])
        async with client.market.book("A") as book:
            assert book.symbol == "A"
            assert book.status is BookStatus.LIVE
            assert book.bids == numbers(("10.0", "1"), ("9.5", "2"))
            assert book.asks == numbers(("10.5", "5"))
            assert (book.best_bid, book.best_ask) == (Decimal("10.0"), Decimal("10.5"))
            assert book.mid == Decimal("10.25")
            # The example of docs/protocol.md.
            assert book.checksum() == 2405454328
            await publish(node, [["10.0", "0"]], [])
            before, after = await anext(book), await anext(book)
            assert (before.best_bid, before.best_ask) == (Decimal("10.0"), Decimal("10.5"))
            assert after.best_bid == Decimal("9.5")
            assert "LIVE" in repr(book)
        await until(lambda: len(node.server.market.subscriptions) == 0)
        assert [each async for each in book] == []


async def test_slow_reader_of_a_book_sees_only_the_last_state() -> None:
    async with running() as node, client_of(node) as client, client.market.book("A") as book:
        for quantity in range(1, 31):
            await publish(node, [["1", str(quantity)]], [])
        await until(lambda: is_at(book, 30))
        seen = [(await anext(book)).bids]
        assert seen == [numbers(("1", "30"))]
        waiting = asyncio.ensure_future(anext(book))
        await asyncio.sleep(0)
        assert not waiting.done()
        await publish(node, [], [["2", "1"]])
        await waiting


async def test_checksum_mismatch_fetches_a_snapshot() -> None:
    async with running() as node, client_of(node) as client, client.market.book("A") as book:
        await publish(node, [["1", "1"]], [["2", "2"]])
        await until(lambda: is_at(book, 1) and book.status is BookStatus.LIVE)
        before = book.resyncs
        book._reader.book._bids.update([("1", "7")])
        await publish(node, [], [["3", "3"]])
        await until(lambda: is_at(book, 2) and book.status is BookStatus.LIVE)
        assert book.resyncs == before + 1
        assert book.bids == numbers(("1", "1"))
        assert book.asks == numbers(("2", "2"), ("3", "3"))


async def test_live_book_recovers_from_a_lost_update() -> None:
    async with running() as node, client_of(node) as client, client.market.book("A") as book:
        await publish(node, [["1", "1"]], [])
        await until(lambda: is_at(book, 1) and book.status is BookStatus.LIVE)
        book._reader._trackers["ORDERBOOK:A"].seq = 0
        await publish(node, [["1", "2"]], [])
        await until(lambda: is_at(book, 2) and book.status is BookStatus.LIVE)
        assert book.bids == numbers(("1", "2"))


async def test_live_book_is_offline_and_recovers_after_a_reconnect() -> None:
    async with running() as node, client_of(node) as client, client.market.book("A") as book:
        await publish(node, [["1", "1"]], [])
        await until(lambda: is_at(book, 1) and book.status is BookStatus.LIVE)
        abort_connections(node)
        await until(lambda: book.status is BookStatus.OFFLINE)
        assert book.bids == numbers(("1", "1"))
        await publish(node, [["1", "2"], ["0.5", "1"]], [])
        await until(lambda: is_at(book, 2))
        assert book.bids == numbers(("1", "2"), ("0.5", "1"))
        abort_connections(node)
        await until(lambda: client.stats.reconnects == 2)
        await until(lambda: book.status is BookStatus.LIVE)


async def test_book_is_empty_after_a_server_restart() -> None:
    async with running() as node:
        port = node.port
        client = client_of(node)
        await client.start()
        await publish(node, [["1", "1"]], [])
        book = client.market.book("A")
        await book.ready()
        assert book.bids == numbers(("1", "1"))
    await until(lambda: client.state is ClientState.OFFLINE)
    async with running({"server.port": port}) as node:
        await until(lambda: book.status is BookStatus.SYNCING and book.bids == [])
        await publish(node, [["7", "1"]], [])
        await until(lambda: book.best_bid == Decimal(7))
        await book.aclose()
        await client.close()


async def test_silent_feed_makes_a_book_stale() -> None:
    async with running() as node, client_of(node) as client, client.market.book("A") as book:
        await publish(node, [["1", "1"]], [])
        await until(lambda: book.status is BookStatus.LIVE and is_at(book, 1))
        node.pass_time(11)
        await until(lambda: book.status is BookStatus.STALE)
        await publish(node, [["1", "2"]], [])
        await until(lambda: book.status is BookStatus.LIVE)


async def test_wrong_snapshot_is_requested_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client_sdk.connection.namespaces._RETRY_SECONDS", 0.01)
    async with running() as node, client_of(node) as client:
        await publish(node, [["1", "1"]], [])
        mismatches = [True]
        real_checksum = type(client.market.book("B")._reader.book).checksum

        def checksum(self: Any) -> int:
            return real_checksum(self) + (self.symbol == "A" and mismatches[0])

        monkeypatch.setattr("client_sdk.market.book.Book.checksum", checksum)
        book = client.market.book("A")
        await until(lambda: book.resyncs == 3)
        assert book.status is BookStatus.SYNCING
        mismatches.clear()
        mismatches.append(False)
        await until(lambda: book.status is BookStatus.LIVE)
        assert book.bids == numbers(("1", "1"))


async def test_wrong_snapshot_among_updates_keeps_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running() as node, client_of(node) as client, client.market.book("A") as book:
        await publish(node, [["1", "1"]], [])
        await until(lambda: is_at(book, 1))
        real_checksum = type(book._reader.book).checksum
        mismatches = [1]

        def checksum(self: Any) -> int:
            return real_checksum(self) + (mismatches.pop() if mismatches else 0)

        monkeypatch.setattr("client_sdk.market.book.Book.checksum", checksum)
        before = book.resyncs
        await publish(node, [["2", "1"]], [], kind="snapshot")
        await until(lambda: is_at(book, 2) and book.status is BookStatus.LIVE)
        assert book.bids == numbers(("2", "1"))
        assert (book.resyncs, client.stats.reconnects) == (before + 1, 0)


async def test_loop_over_a_book_yields_each_change_of_its_status() -> None:
    async with running() as node, client_of(node) as client, client.market.book("A") as book:
        await publish(node, [["1", "1"]], [["2", "3"]], kind="snapshot")
        states: list[BookState] = []

        async def read() -> None:
            while True:
                states.append(await anext(book))

        reading = asyncio.create_task(read())
        await until(lambda: states and states[-1].status is BookStatus.LIVE)
        live = states[-1]
        node.pass_time(20)
        await until(lambda: states[-1].status is BookStatus.STALE)
        await publish(node, [["1", "2"]], [])
        await until(lambda: states[-1].status is BookStatus.LIVE)
        abort_connections(node)
        await until(lambda: BookStatus.OFFLINE in [each.status for each in states])
        await until(lambda: states[-1].status is BookStatus.LIVE)
        offline = next(each for each in states if each.status is BookStatus.OFFLINE)
        assert offline.bids == numbers(("1", "2"))
        # The first state is what it was.
        assert (live.bids, live.status) == (numbers(("1", "1")), BookStatus.LIVE)
        assert live.position is not None
        assert (live.ts, live.position.seq) == (int(node.clock.time() - 20) * 1000, 1)
        assert live.age is not None
        with pytest.raises(AttributeError):
            live.status = BookStatus.STALE  # type: ignore[misc]
        reading.cancel()


async def test_book_that_the_server_does_not_have_is_not_live() -> None:
    async with running() as node, client_of(node) as client, client.market.book("TYPO") as book:
        assert book.status is BookStatus.SYNCING
        state = await anext(book)
        assert (state.status, state.bids) == (BookStatus.SYNCING, [])
        assert (state.ts, state.age) == (None, None)


async def test_many_deep_books_all_become_live() -> None:
    symbols = [f"S{number}" for number in range(60)]
    levels = {"bids": [[f"{price}.0000", "1.0000001"] for price in range(1, 201)], "asks": []}
    async with running() as node, client_of(node) as client:
        for symbol in symbols:
            await node.server.market.publishing.publish(
                f"ORDERBOOK:{symbol}", levels, kind="snapshot"
            )
        # Their states do not fit into one reply: the rest follows as messages.
        books = [client.market.book(symbol) for symbol in symbols]
        await until(lambda: all(each.status is BookStatus.LIVE for each in books))
        assert {len(each.bids) for each in books} == {200}
        for each in books:
            each.close()


async def test_forbidden_book_raises() -> None:
    async with running() as node, client_of(node, node.token(symbols=["B"])) as client:
        with pytest.raises(ForbiddenError):
            async with client.market.book("A"):
                raise AssertionError
        with pytest.raises(ForbiddenError):
            await anext(client.market.book("A"))


async def test_dropped_book_ends_its_subscription() -> None:
    async with running() as node, client_of(node) as client:

        async def open_and_drop(client: Client) -> None:
            book = client.market.book("A")
            await book.ready()

        await open_and_drop(client)
        await until(lambda: len(node.server.market.subscriptions) == 0)
