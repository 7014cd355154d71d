"""The feed `postgres` publishes each row of an outbox once, and deletes it."""

import asyncio
import json
from collections.abc import Iterator

import psycopg
import pytest

from server.feeds import FeedError
from tests.feeds.sources.rig import source_rig, trade
from tests.kit.patience import until
from tests.kit.sources.programs import postgres_server

pytestmark = pytest.mark.processes

TABLE = """
CREATE TABLE floorcast_outbox (
    id bigserial PRIMARY KEY, topic text NOT NULL, data jsonb NOT NULL,
    org text, user_id text, type text, source_ts bigint
)
"""


@pytest.fixture(name="url", scope="module")
def url_of_a_server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture(name="database")
def database_with_an_outbox(url: str) -> Iterator["psycopg.Connection"]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS floorcast_outbox")
        connection.execute(TABLE)
        yield connection


def add(database: "psycopg.Connection", *numbers: int, topic: str = "TRADES:A") -> None:
    rows = [(topic, json.dumps(trade(number))) for number in numbers]
    with database.transaction(), database.cursor() as cursor:
        cursor.executemany("INSERT INTO floorcast_outbox (topic, data) VALUES (%s, %s)", rows)
        cursor.execute("NOTIFY floorcast_outbox")


def remaining(database: "psycopg.Connection") -> int:
    row = database.execute("SELECT count(*) FROM floorcast_outbox").fetchone()
    assert row is not None
    return int(row[0])


async def test_rows_are_published_in_their_order_and_deleted(
    url: str, database: "psycopg.Connection"
) -> None:
    rig = await source_rig("postgres", url=url)
    add(database, 1, 2)
    async with rig.run():
        await until(lambda: rig.published("TRADES:A") == 2)
        add(database, 3)
        await until(lambda: rig.published("TRADES:A") == 3)
        await until(lambda: remaining(database) == 0)
    assert await rig.numbers() == [1, 2, 3]


async def test_feed_that_is_cut_off_publishes_every_row_once(
    url: str, database: "psycopg.Connection"
) -> None:
    rig = await source_rig("postgres", url=url)
    add(database, *range(1, 301))
    await rig.cut_off_often(10)
    await rig.run_until(300)
    assert await rig.numbers() == list(range(1, 301))


async def test_two_servers_publish_every_row_once(url: str, database: "psycopg.Connection") -> None:
    rig = await source_rig("postgres", url=url)
    add(database, *range(1, 201))
    async with rig.run(), rig.run():
        await until(lambda: rig.published("TRADES:A") >= 200)
        await until(lambda: remaining(database) == 0)
        await asyncio.sleep(0)
    assert sorted(await rig.numbers()) == list(range(1, 201))


async def test_private_row_needs_its_user(url: str, database: "psycopg.Connection") -> None:
    rig = await source_rig("postgres", url=url)
    database.execute(
        "INSERT INTO floorcast_outbox (topic, data, org, user_id) VALUES (%s, %s, %s, %s)",
        ("ORDER_UPDATES", json.dumps({"order_id": "7"}), "acme", "ann"),
    )
    # A row that can never be published does not hold up the others.
    add(database, 1, topic="NOPE")
    add(database, 2)
    await rig.run_until(1)
    [published] = [each for each in rig.market.broker._logs if "ORDER_UPDATES" in each]
    assert "ann" in published


async def test_error_of_the_options_shows_no_password() -> None:
    rig = await source_rig("postgres", url="postgresql://me:secret@host/db", tables="x")
    with pytest.raises(FeedError, match=r"feed\.postgres\.tables") as caught:
        async with rig.run():
            pass
    assert "secret" not in str(caught.value)
