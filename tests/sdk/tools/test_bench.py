"""`floorcast bench` proves what arrived, and fails if anything is missing or out of order."""

import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from client_sdk import Client, Gap, GapReason
from client_sdk.contract import TradesMessage
from client_sdk.stats import Latencies, Latency
from client_sdk.tools.options import UsageError
from client_sdk.tools.proof import Proof, Receiver
from tests.kit.server.in_process import running
from tests.sdk.tools.commands import environ_of, run


async def test_bench_of_a_sound_server_succeeds(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as node:
        words = ("bench", "--clients=3", "--topics=2", "--rate=500", "--seconds=0.1", "--json")
        assert await run(environ_of(node), *words) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["published"], result["received"]) == (50, 150)
    assert result["ok"] is True
    assert [result[name] for name in ("missing", "gaps", "duplicates", "reorders")] == [0] * 4


async def test_bench_fails_if_its_messages_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    async with running() as node:
        token = node.token(symbols=["OTHER"])
        words = ("bench", "--clients=1", "--seconds=0.01", "--symbol=OTHER", "--topics=1")
        with pytest.raises(Exception, match="does not allow TRADES:OTHER1"):
            await run(environ_of(node, token), *words)


async def test_bench_names_the_limit_of_clients() -> None:
    async with running({"limits.connections_per_user": 2}) as node:
        with pytest.raises(UsageError, match="the server accepts no more clients"):
            await run(environ_of(node), "bench", "--clients=4", "--seconds=0.01")


def trade(number: int) -> TradesMessage:
    deal = {"id": str(number), "price": "1", "qty": "1", "side": "buy", "ts": 1}
    body = {"stream": "TRADES", "symbol": "A", "type": "update", "epoch": "e1", "seq": number + 1}
    return TradesMessage.model_validate(
        {**body, "prev": number, "ts": 1, "data": {"trades": [deal]}}
    )


class ScriptedClient:
    """A client whose stream yields given items."""

    def __init__(self, *items: object) -> None:
        self.market = self
        self._items = items

    def stream(self, *topics: str) -> AsyncIterator[Any]:
        async def items() -> AsyncIterator[Any]:
            for each in self._items:
                yield each

        return items()


async def proof_of(*items: object) -> Proof:
    """The proof of one client that received these items; three messages were published."""
    client = cast(Client, ScriptedClient(*items))
    receiver = Receiver(client, ["TRADES:A"], lambda key: (int(key), 0.0), Latencies())
    await receiver.run()
    return Proof.of([receiver], 3, {}, Latency(), 0.0, 0.0)


@pytest.mark.parametrize(
    ("items", "faults"),
    [
        ((trade(0), trade(1), trade(2)), (0, 0, 0, 0)),
        ((trade(0), trade(2)), (1, 0, 0, 0)),
        ((trade(0), Gap("TRADES:A", "e1", 2, 2, GapReason.HISTORY), trade(2)), (1, 1, 0, 0)),
        ((trade(0), trade(1), trade(1), trade(2)), (0, 0, 1, 0)),
        ((trade(1), trade(0), trade(2)), (0, 0, 0, 1)),
    ],
)
async def test_each_fault_breaks_the_proof(
    items: tuple[object, ...], faults: tuple[int, int, int, int]
) -> None:
    proof = await proof_of(*items)
    assert (proof.missing, proof.gaps, proof.duplicates, proof.reorders) == faults
    assert proof.holds is (faults == (0, 0, 0, 0))
    assert ("ok" if proof.holds else "FAILED") in proof.text().splitlines()[-1]
