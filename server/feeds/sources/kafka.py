"""The feed `kafka`: consumes topics of Kafka, with partition and offset as the message's id."""

import asyncio
import contextlib
from functools import partial
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context
from pydantic import Field, model_validator

from server.feeds.sources.messages import SourceMessage, read_body, read_envelope
from server.feeds.sources.options import SourceOptions, TopicsByName, read_options
from server.feeds.sources.relay import Relay
from server.ports import FeedOptions, Publishing

_COUNT = 200
_FETCH_MS = 1000
_TIMEOUT_SECONDS = 5.0
# How often it looks for new partitions, and so notices brokers that are away.
_CHECK_SECONDS = 2.0


class KafkaOptions(SourceOptions):
    """`[feed.kafka]`."""

    servers: str = "localhost:9092"
    # Each topic of Kafka with the topic of its messages, or "" if each message names its own; {1}
    # is the message's key.
    topics: TopicsByName
    # Under this name Kafka keeps how far the feed is.
    group: str = "floorcast"
    security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str | None = None
    password: str | None = Field(None, repr=False)
    # A file of certificates to trust; without it those of the system.
    ca_file: str | None = None

    @model_validator(mode="after")
    def _check_login(self) -> "KafkaOptions":
        if self.security.startswith("SASL") and None in (self.username, self.password):
            raise ValueError("SASL needs a username and a password")
        return self

    def connection(self) -> dict[str, Any]:
        """The arguments of a client of aiokafka."""
        connection: dict[str, Any] = {
            "bootstrap_servers": self.servers,
            "client_id": "floorcast",
            "request_timeout_ms": int(_TIMEOUT_SECONDS * 1000),
            "security_protocol": self.security,
        }
        if self.security.endswith("SSL"):
            connection["ssl_context"] = create_ssl_context(cafile=self.ca_file)
        if self.security.startswith("SASL"):
            connection |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return connection


class KafkaFeed:
    """Reads all partitions of some topics, and commits an offset once its messages are published.

    It joins no consumer group: two servers read the same messages, and each is published once.
    """

    def __init__(self, options: FeedOptions) -> None:
        self._options = read_options(KafkaOptions, options)
        self._name = options.name
        self._clock = options.clock

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled; raises `ConnectionError` if the brokers are away."""
        relay = Relay(self._name, publishing, self._clock)
        connection = self._options.connection()
        admin = AIOKafkaAdminClient(**connection)
        consumer = AIOKafkaConsumer(
            group_id=self._options.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            **connection,
        )
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await admin.start()
                await consumer.start()
            await self._consume(admin, consumer, relay)
        except (KafkaError, TimeoutError) as error:
            reason = str(error) or "no broker answers"
            raise ConnectionError(f"the connection to Kafka is lost: {reason}") from None
        finally:
            # Stopping while brokers are away lets the cancellation of aiokafka's own tasks out.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIMEOUT_SECONDS):
                    await asyncio.gather(consumer.stop(), admin.close(), return_exceptions=True)

    async def _consume(
        self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, relay: Relay
    ) -> None:
        assigned: set[TopicPartition] = set()
        check_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            if loop.time() >= check_at:
                found = await self._partitions(admin)
                if found != assigned:
                    # Each begins at its committed offset.
                    consumer.assign(sorted(found))
                    assigned = found
                check_at = loop.time() + _CHECK_SECONDS
            if assigned:
                await self._publish_next(consumer, relay)
            else:
                await asyncio.sleep(_FETCH_MS / 1000)

    async def _publish_next(self, consumer: AIOKafkaConsumer, relay: Relay) -> None:
        fetched = await consumer.getmany(timeout_ms=_FETCH_MS, max_records=_COUNT)
        for partition, messages in fetched.items():
            topic = self._options.topics[partition.topic]
            for message in messages:
                offset = f"{partition.topic}:{partition.partition}:{message.offset}"
                await relay.publish(partial(_message, message, topic), offset)
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await consumer.commit({partition: messages[-1].offset + 1})

    async def _partitions(self, admin: AIOKafkaAdminClient) -> set[TopicPartition]:
        """All partitions of the topics; raises if no broker answers."""
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            described = await admin.describe_topics(list(self._options.topics))
        return {
            TopicPartition(topic["topic"], partition["partition"])
            for topic in described
            for partition in topic["partitions"]
        }


def _message(message: ConsumerRecord[Any, Any], topic: str) -> SourceMessage:
    body: bytes = message.value or b""
    if not topic:
        return read_envelope(body)
    key: bytes | None = message.key
    return read_body(body, topic, () if key is None else (key.decode(errors="replace"),))
