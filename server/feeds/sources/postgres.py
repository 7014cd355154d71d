"""The feed `postgres`: publishes the rows of an outbox table, with the row's id as the id."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow
from pydantic import Field

from server.feeds.sources.messages import SourceMessage, UnreadableMessage, message_of
from server.feeds.sources.options import SourceOptions, read_options
from server.feeds.sources.relay import Relay
from server.ports import FeedOptions, Publishing

_COUNT = 200
_CONNECT_SECONDS = 5
# Rows whose notification was lost wait at most so long.
_POLL_SECONDS = 2.0


class PostgresOptions(SourceOptions):
    """`[feed.postgres]`."""

    url: str = Field(repr=False)
    # With the columns id, topic, data, and org, user_id, type, source_ts, which may be null.
    table: str = Field("floorcast_outbox", pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")
    # The channel of LISTEN; a trigger or the writer notifies it.
    channel: str = Field("floorcast_outbox", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


class PostgresFeed:
    """Publishes rows in the order of their ids, and deletes each with its transaction.

    Two servers can read one table: a row that one of them holds is skipped by the other.
    """

    def __init__(self, options: FeedOptions) -> None:
        self._options = read_options(PostgresOptions, options)
        self._name = options.name
        self._clock = options.clock
        table = sql.Identifier(*self._options.table.split("."))
        self._select = sql.SQL(
            "SELECT id, topic, data, org, user_id, type, source_ts FROM {} "
            "ORDER BY id LIMIT {} FOR UPDATE SKIP LOCKED"
        ).format(table, sql.Literal(_COUNT))
        self._delete = sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(table)

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled; raises what psycopg raises if the server is away."""
        relay = Relay(self._name, publishing, self._clock)
        url, channel = self._options.url, sql.Identifier(self._options.channel)
        connect: dict[str, Any] = {
            "connect_timeout": _CONNECT_SECONDS,
            # A host that vanishes is noticed.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        }
        async with (
            await AsyncConnection.connect(url, autocommit=True, **connect) as listening,
            await AsyncConnection.connect(url, **connect) as connection,
        ):
            await listening.execute(sql.SQL("LISTEN {}").format(channel))
            while True:
                while await self._publish_rows(connection, relay):
                    pass
                # Returns at the first notification.
                async for _ in listening.notifies(timeout=_POLL_SECONDS, stop_after=1):
                    pass

    async def _publish_rows(self, connection: AsyncConnection[TupleRow], relay: Relay) -> bool:
        """Publish and delete the next rows; False if there are none."""
        async with connection.transaction():
            rows = await (await connection.execute(self._select)).fetchall()
            for row in rows:
                await relay.publish(partial(_message, row), str(row[0]))
            if rows:
                await connection.execute(self._delete, ([row[0] for row in rows],))
        return bool(rows)


def _message(row: Sequence[Any]) -> SourceMessage:
    _, topic, data, org, user, kind, source_ts = row
    if isinstance(data, str):
        raise UnreadableMessage("the column data must have the type json or jsonb")
    fields = {"topic": topic, "data": data, "user": user, "source_ts": source_ts}
    return message_of({**fields, "org": org or "default", "type": kind or "update"})
