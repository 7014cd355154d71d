"""The cluster of a single process: it is the only node."""

import secrets

from server.ports import AnswerQuestion, Answers


async def _answer_nothing(_: bytes) -> bytes:
    raise RuntimeError("the cluster has not started")


class MemoryCluster:
    """Implements `Cluster` for one process."""

    def __init__(self) -> None:
        self.node = secrets.token_hex(6)
        self._answer: AnswerQuestion = _answer_nothing

    async def start(self, answer: AnswerQuestion) -> None:
        self._answer = answer

    async def stop(self) -> None:
        self._answer = _answer_nothing

    async def ask(self, question: bytes) -> Answers:
        return Answers({self.node: await self._answer(question)})
