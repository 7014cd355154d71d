"""The feed `redis-stream`: consumes Redis streams, with the entry's id as the message's id."""

import asyncio
from functools import partial
from typing import cast

from pydantic import Field
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from server.feeds.sources.messages import SourceMessage, message_of, read_body, read_envelope
from server.feeds.sources.options import SourceOptions, TopicsByName, read_options
from server.feeds.sources.relay import Relay
from server.ports import FeedOptions, Publishing

_COUNT = 200
_BLOCK_MS = 2000
# How often it looks for entries that another node has read and not acknowledged.
_PENDING_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
# The read blocks for two seconds; a silent host is noticed a little later.
_READ_SECONDS = 10.0

_Entry = tuple[bytes, dict[bytes, bytes]]


class RedisStreamOptions(SourceOptions):
    """`[feed.redis-stream]`."""

    url: str = Field("redis://localhost:6379/0", repr=False)
    # Each key with the topic of its entries, or "" if each entry names its own.
    streams: TopicsByName
    group: str = "floorcast"
    consumer: str = "floorcast"


class RedisStreamFeed:
    """Reads streams as one consumer of a group, and acknowledges an entry once it is published.

    An entry is an envelope in its field `message`, or its fields are those of an envelope with the
    data as JSON. After a restart, entries that were read and not acknowledged come again.
    """

    def __init__(self, options: FeedOptions) -> None:
        self._options = read_options(RedisStreamOptions, options)
        self._name = options.name
        self._clock = options.clock

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled; raises what redis-py raises if Redis is away."""
        relay = Relay(self._name, publishing, self._clock)
        redis = Redis.from_url(
            self._options.url,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_READ_SECONDS,
        )
        async with redis:
            for key in self._options.streams:
                await self._create_group(redis, key)
            loop = asyncio.get_running_loop()
            pending_at = 0.0
            while True:
                if loop.time() >= pending_at:
                    # What was read before the last restart, or by a node that has died.
                    while await self._read(redis, relay, "0", block_ms=None):
                        pass
                    pending_at = loop.time() + _PENDING_SECONDS
                await self._read(redis, relay, ">", block_ms=_BLOCK_MS)

    async def _create_group(self, redis: Redis, key: str) -> None:
        try:
            await redis.xgroup_create(key, self._options.group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _read(self, redis: Redis, relay: Relay, start: str, *, block_ms: int | None) -> bool:
        """Publish the next entries of all streams; False if there were none."""
        options = self._options
        found = await redis.xreadgroup(
            options.group,
            options.consumer,
            dict.fromkeys(options.streams, start),
            count=_COUNT,
            block=block_ms,
        )
        read_any = False
        for raw_key, entries in cast("list[tuple[bytes, list[_Entry]]]", found or []):
            key = raw_key.decode()
            topic = options.streams[key]
            for entry_id, fields in entries:
                offset = f"{key}:{entry_id.decode()}"
                await relay.publish(partial(_message, fields, topic), offset)
                await redis.xack(key, options.group, entry_id)
                read_any = True
        return read_any


def _message(fields: dict[bytes, bytes] | None, topic: str) -> SourceMessage:
    # An entry that was deleted after it was read has no fields.
    texts = {name.decode(): value.decode() for name, value in (fields or {}).items()}
    if topic:
        return read_body(texts.get("data", texts.get("message", "")), topic, ())
    if "message" in texts:
        return read_envelope(texts["message"])
    envelope: dict[str, object] = dict(texts)
    envelope["data"] = read_body(texts.get("data", ""), "", ()).data
    if "source_ts" in texts and texts["source_ts"].isdecimal():
        envelope["source_ts"] = int(texts["source_ts"])
    return message_of(envelope)
