"""The program in `every_name.py` runs and uses every public name."""

import asyncio
import re
from pathlib import Path

import client_sdk
from tests.kit.server.in_process import running
from tests.sdk import every_name


async def test_program_with_every_public_name_runs() -> None:
    async with running() as node:
        lines = await every_name.tour(node.url, node.token())
        assert lines[-1] == "ended CLOSED None"
        assert any(line.startswith("auth.forbidden") for line in lines)
        last = await asyncio.to_thread(every_name.script, node.url, node.token())
        assert last == ["1.01"]
        await node.until_empty()


def test_program_uses_every_public_name() -> None:
    used = set(re.findall(r"\bsdk\.(\w+)", Path(every_name.__file__).read_text()))
    assert set(client_sdk.__all__) - used == set()
    assert used - set(client_sdk.__all__) == set()
