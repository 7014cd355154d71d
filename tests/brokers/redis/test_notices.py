"""The notice store over Redis: what arrives while a node reads the pending notices."""

import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from server.brokers import Address, RedisBroker, RedisConfig, RedisNoticeStore
from server.brokers.redis.connection.client import Command
from server.core.counters import Counters
from server.core.sessions.notices import Notice, Notices
from server.ports import ignore
from tests.kit.clock import START, ManualClock
from tests.kit.patience import until
from tests.kit.redis.servers import RedisServer

_prefixes = itertools.count(1)


class LateReplies(RedisBroker):
    """A broker whose replies to HSCAN arrive after what `before_reply` does."""

    before_reply: Callable[[], Awaitable[None]] | None = None

    async def run(self, command: Command, *, durable: bool = False) -> Any:
        reply = await super().run(command, durable=durable)
        if command[0] == b"HSCAN" and self.before_reply is not None:
            before_reply, self.before_reply = self.before_reply, None
            await before_reply()
        return reply


async def test_notice_posted_while_a_node_reads_them_stays_pending(
    shared_redis: RedisServer,
) -> None:
    clock, counters = ManualClock(), Counters()
    prefix = f"notices{next(_prefixes)}"
    config = RedisConfig(Address.parse(shared_redis.url), prefix=prefix)
    broker = LateReplies(clock, counters, config)
    notices = Notices(keep_seconds=60, max_per_user=10, max_total=10)
    store = RedisNoticeStore(clock, config, broker, notices, keep_seconds=60)
    notice = Notice("acme", "ann", "1", "fill", int(START * 1000), b"{}")
    has_read = False

    async def post() -> None:
        nonlocal has_read
        await store.post(notice, critical=True)
        await until(lambda: notices.all())
        has_read = True

    broker.before_reply = post
    await broker.start(ignore)
    try:
        await store.start(lambda notice, critical: 1)
        await until(lambda: has_read)
        await store.post(
            Notice("acme", "ann", "2", "fill", int(START * 1000), b"{}"), critical=True
        )
        await until(lambda: any(each.id == "2" for each in notices.all()))
        assert [each.id for each in store.pending("acme", "ann")] == ["1", "2"]
    finally:
        await store.stop()
        await broker.stop()
