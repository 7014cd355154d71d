"""`floorcast tail` prints what it receives, one line a message."""

import asyncio
import json

import pytest

from client_sdk import TopicError
from client_sdk.tools.options import UsageError
from tests.kit.clients.sdk import client_of
from tests.kit.patience import until
from tests.kit.server.in_process import PRICE, running
from tests.sdk.tools.commands import environ_of, run


async def test_tail_prints_messages_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as node:
        publishing = node.server.market.publishing
        await publishing.publish("PRICE:A", PRICE)
        tail = asyncio.create_task(run(environ_of(node), "tail", "PRICE:A", "--json", "--count=2"))
        await until(lambda: node.server.delivery.hub.topic_count == 1)
        await publishing.publish("PRICE:A", {**PRICE, "last": "1.02"})
        assert await tail == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [(each["topic"], each["type"], each["seq"]) for each in lines] == [
            ("PRICE:A", "snapshot", 1),
            ("PRICE:A", "update", 2),
        ]
        assert lines[1]["data"]["last"] == "1.02"


async def test_tail_shows_topics_and_sessions_together(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as node, client_of(node, node.token("bob")) as bob:
        await node.server.market.publishing.publish("PRICE:A", PRICE)
        async with bob.session.join("desk") as session:
            words = ("tail", "PRICE:A", "session:desk", "--count=2")
            tail = asyncio.create_task(run(environ_of(node), *words))
            await until(lambda: len(node.server.sessions.service.memberships) == 2)
            await session.send({"text": "hello"})
            assert await tail == 0
        lines = sorted(line.partition(" ")[2] for line in capsys.readouterr().out.splitlines())
        assert lines == [
            f"PRICE:A #1 {json.dumps(PRICE)}",
            'desk bob #1 {"text": "hello"}',
        ]


async def test_tail_ends_with_the_error_of_a_topic() -> None:
    async with running() as node:
        with pytest.raises(TopicError, match="unknown topic NOPE"):
            await run(environ_of(node), "tail", "NOPE", "--lines")


async def test_tail_needs_the_name_of_a_session() -> None:
    with pytest.raises(UsageError, match="name the session"):
        await run({}, "tail", "session:")
