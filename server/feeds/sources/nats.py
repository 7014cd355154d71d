"""The feed `nats`: subscribes to subjects, or consumes a JetStream with its sequence as the id."""

import asyncio
from functools import partial

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingNew
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from pydantic import Field, model_validator

from server.feeds.sources.messages import SourceMessage, read_body, read_envelope
from server.feeds.sources.options import SourceOptions, TopicsByName, read_options
from server.feeds.sources.relay import Relay
from server.ports import FeedOptions, Publishing

_CONNECT_SECONDS = 5.0
_FETCH_SECONDS = 2.0
_FETCH_COUNT = 200
_MAX_WAITING = 10_000


class NatsOptions(SourceOptions):
    """`[feed.nats]`."""

    url: str = Field("nats://localhost:4222", repr=False)
    # Each subject with the topic of its messages, or "" if each message names its own; {1} is what
    # the first wildcard stands for.
    subjects: TopicsByName
    # A JetStream: nothing is lost while this server is away.
    stream: str | None = None
    durable: str = "floorcast"

    @model_validator(mode="after")
    def _check_subjects(self) -> "NatsOptions":
        if self.stream is not None and len(self.subjects) > 1:
            raise ValueError("a consumer of a stream has one subject, such as orders.>")
        return self


class NatsFeed:
    """Publishes the messages of subjects.

    Without a stream, what NATS sends while this server is away is lost. With one, a message is
    acknowledged once it is published, and comes again if it was not.
    """

    def __init__(self, options: FeedOptions) -> None:
        self._options = read_options(NatsOptions, options)
        self._name = options.name
        self._clock = options.clock

    async def run(self, publishing: Publishing) -> None:
        """Publish until cancelled; raises what nats-py raises if the connection is lost."""
        relay = Relay(self._name, publishing, self._clock)
        client = await nats.connect(
            self._options.url,
            connect_timeout=int(_CONNECT_SECONDS),
            # The supervisor of feeds restarts this one, with growing pauses.
            allow_reconnect=False,
        )
        try:
            if self._options.stream is None:
                await self._run_subjects(client, relay)
            else:
                await self._run_stream(client, relay, self._options.stream)
        finally:
            await client.close()

    async def _run_subjects(self, client: Client, relay: Relay) -> None:
        arrived: asyncio.Queue[tuple[Msg, str, str]] = asyncio.Queue(_MAX_WAITING)
        for subject, topic in self._options.subjects.items():

            async def on_message(message: Msg, subject: str = subject, topic: str = topic) -> None:
                await arrived.put((message, subject, topic))

            await client.subscribe(subject, cb=on_message)
        while True:
            try:
                async with asyncio.timeout(_FETCH_SECONDS):
                    message, subject, topic = await arrived.get()
            except TimeoutError:
                _check_connected(client)
                continue
            read = partial(_message, message, subject, topic)
            await relay.publish(read, message.subject, once=False)

    async def _run_stream(self, client: Client, relay: Relay, stream: str) -> None:
        [(subject, topic)] = self._options.subjects.items()
        jetstream = client.jetstream()
        config = await self._consumer(jetstream, stream, subject)
        consumer = await jetstream.pull_subscribe(
            subject, durable=self._options.durable, stream=stream, config=config
        )
        while True:
            try:
                messages = await consumer.fetch(_FETCH_COUNT, timeout=_FETCH_SECONDS)
            except NothingNew:
                _check_connected(client)
                continue
            for message in messages:
                offset = f"{stream}:{message.metadata.sequence.stream}"
                await relay.publish(partial(_message, message, subject, topic), offset)
                await message.ack()

    async def _consumer(
        self, jetstream: JetStreamContext, stream: str, subject: str
    ) -> ConsumerConfig:
        """The consumer to read with; begins after the last message that was published.

        What was read and not acknowledged would come again only after a while, behind newer
        messages: a new consumer of the same name begins with it.
        """
        durable = self._options.durable
        config = ConsumerConfig(durable_name=durable, filter_subject=subject)
        try:
            known = await jetstream.consumer_info(stream, durable)
        except NotFoundError:
            return config
        if known.num_ack_pending:
            await jetstream.delete_consumer(stream, durable)
            config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
            floor = known.ack_floor
            config.opt_start_seq = 1 + (0 if floor is None else floor.stream_seq)
        return config


def _check_connected(client: Client) -> None:
    if not client.is_connected:
        raise ConnectionError("the connection to NATS is lost")


def _message(message: Msg, subject: str, topic: str) -> SourceMessage:
    if not topic:
        return read_envelope(message.data)
    return read_body(message.data, topic, _wildcards(subject, message.subject))


def _wildcards(pattern: str, subject: str) -> list[str]:
    """What the wildcards of a pattern stand for in a subject."""
    words: list[str] = []
    tokens = subject.split(".")
    for index, each in enumerate(pattern.split(".")):
        if each == "*":
            words.append(tokens[index])
        elif each == ">":
            words += tokens[index:]
    return words
