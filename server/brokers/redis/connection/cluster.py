"""Asks all nodes a question over pub/sub; each node answers to the one that asks."""

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field

import orjson

from server.brokers.failure_log import FailureLog
from server.brokers.redis.broker import RedisBroker
from server.brokers.redis.config import RedisConfig
from server.brokers.redis.connection.address import AddressKind
from server.brokers.redis.connection.keys import Keys
from server.brokers.redis.connection.leases import DEAD_PREFIX
from server.brokers.redis.connection.node_session import process_name
from server.brokers.redis.connection.replies import as_int, as_mapping
from server.brokers.redis.log.subscriber import ANSWER_PREFIX
from server.core.errors import FloorcastError
from server.ports import AnswerQuestion, Answers
from server.tasks import cancel_and_wait

# The channel that every node watches.
CHANNEL = "cluster"
# Enough for a node that is busy; a caller waits for it, and the whole request has a limit too.
_ASK_SECONDS = 0.8
_MAX_ASKED = 1_000
_MAX_ANSWERING = 200
_RETRY_SECONDS = 1.0
# As a script: a Cluster's client would turn the reply of the plain command into a dict.
_READ_NODES = b"return redis.call('HGETALL', KEYS[1])"


@dataclass(slots=True, eq=False)
class _Question:
    """A question under way: the answers so far, and the nodes that are to answer."""

    answers: dict[str, bytes] = field(default_factory=dict)
    # Nodes that have said that they cannot answer.
    failed: set[str] = field(default_factory=set)
    nodes: set[str] = field(default_factory=set)
    # How many nodes have received it; None while that is unknown.
    receivers: int | None = None
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def missing(self) -> tuple[str, ...]:
        """The nodes whose answer is missing."""
        return tuple(sorted((self.nodes | self.failed) - self.answers.keys()))

    def check(self) -> None:
        """Set `complete` if no further answer can be expected."""
        replied = self.answers.keys() | self.failed
        if self.receivers is not None and (len(replied) >= self.receivers or self.nodes <= replied):
            self.complete.set()


class RedisCluster:
    """Implements `Cluster`: the running nodes are those with a heartbeat in Redis."""

    def __init__(self, config: RedisConfig, broker: RedisBroker) -> None:
        self._broker = broker
        self._keys = Keys(config.prefix)
        self._max_bytes = config.max_entry_bytes
        # In a Cluster PUBLISH counts only the receivers on its own shard.
        self._counts_receivers = config.address.kind is not AddressKind.CLUSTER
        self._answer: AnswerQuestion | None = None
        self._numbers = itertools.count(1)
        self._questions: dict[int, _Question] = {}
        # As of the last question, for when Redis is down.
        self._known_nodes: set[str] = set()
        self._answering: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._failure_log = FailureLog()

    @property
    def node(self) -> str:
        return self._broker.node

    async def start(self, answer: AnswerQuestion) -> None:
        self._answer = answer
        self._broker.set_answer_handler(self._on_answer)
        self._broker.add_listener(self._on_question, lambda: None)
        self._watching = self._broker.tasks.keep(self._watch, "floorcast-cluster", may_end=True)

    async def stop(self) -> None:
        if self._watching is not None:
            await cancel_and_wait(self._watching, *self._answering)
            self._watching = None

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(FloorcastError):
                await self._broker.watch(CHANNEL)
                return
            # Redis is down.
            await asyncio.sleep(_RETRY_SECONDS)

    # --- asking

    async def ask(self, question: bytes) -> Answers:
        assert self._answer is not None
        asked = _Question(nodes=set(self._known_nodes))
        asked.answers[self.node] = await self._answer(question)
        if len(self._questions) < _MAX_ASKED:
            await self._ask_others(asked, question)
        return Answers(asked.answers, asked.missing)

    async def _ask_others(self, asked: _Question, question: bytes) -> None:
        number = next(self._numbers)
        self._questions[number] = asked
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                receivers, asked.nodes = await asyncio.gather(
                    self._publish(number, question), self._fetch_nodes()
                )
                self._known_nodes = set(asked.nodes)
                asked.receivers = receivers if self._counts_receivers else len(asked.nodes)
                asked.check()
                await asked.complete.wait()
        except (TimeoutError, FloorcastError):
            # A node hangs, or Redis is down.
            pass
        finally:
            del self._questions[number]

    async def _publish(self, number: int, question: bytes) -> int:
        head = orjson.dumps({"v": 1, "ask": number, "node": self.node})
        message = b'%b,"question":%b}' % (head[:-1], question)
        return as_int(await self._broker.run((b"PUBLISH", self._keys.base(CHANNEL), message)))

    async def _fetch_nodes(self) -> set[str]:
        """The nodes that have a heartbeat and were not declared dead."""
        nodes = await self._broker.run((b"EVAL", _READ_NODES, 1, self._keys.nodes()))
        return {
            process_name(name.decode(errors="replace"))
            for name, beat in as_mapping(nodes).items()
            if not beat.startswith(DEAD_PREFIX)
        }

    def _on_answer(self, message: bytes) -> None:
        number, _, rest = message.partition(b":")
        node, _, answer = rest.partition(b":")
        asked = self._questions.get(int(number)) if number.isdigit() else None
        # Late answers are dropped.
        if asked is not None:
            name = node.decode(errors="replace")
            if answer:
                asked.answers[name] = answer
            else:
                asked.failed.add(name)
            asked.check()

    # --- answering

    def _on_question(self, channel: str, message: bytes) -> bool:
        if channel != CHANNEL:
            return False
        try:
            decoded = orjson.loads(message)
        except orjson.JSONDecodeError:
            return False
        match decoded:
            case {"v": 1, "ask": int(number), "node": str(node), "question": dict(question)}:
                if node != self.node and len(self._answering) < _MAX_ANSWERING:
                    self._start_answer(number, node, orjson.dumps(question))
                return True
        return False

    def _start_answer(self, number: int, node: str, question: bytes) -> None:
        task = self._broker.tasks.start(
            self._answer_question(number, node, question), "floorcast-cluster-answer"
        )
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer_question(self, number: int, node: str, question: bytes) -> None:
        answer = b""
        try:
            assert self._answer is not None
            async with asyncio.timeout(_ASK_SECONDS):
                answer = await self._answer(question)
        except Exception as failure:
            # Other nodes learn that this one cannot answer, and this one's log has the reason.
            self._failure_log.report(failure)
        if len(answer) > self._max_bytes:
            answer = b""
        message = b"%b%d:%b:%b" % (ANSWER_PREFIX, number, self.node.encode(), answer)
        with contextlib.suppress(FloorcastError):
            await self._broker.run((b"PUBLISH", self._keys.node(node), message))
