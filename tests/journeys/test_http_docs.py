"""The snippets of docs/http-api.md and the example run as they stand."""

import asyncio
import os
import re
from pathlib import Path

import pytest

from client_sdk.contract import Scope
from tests.kit.server.in_process import running

_TEXT = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
SNIPPETS = [each for each in re.findall(r"```sh\n(.*?)```", _TEXT, re.DOTALL) if "curl" in each]


@pytest.mark.parametrize("snippet", SNIPPETS)
async def test_snippet_runs(snippet: str) -> None:
    async with running() as node:
        token = node.token("ops", scopes=tuple(Scope))
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", snippet),
            env={**os.environ, "URL": f"{node.url}/api/v1", "TOKEN": token},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()


async def test_example_script_runs() -> None:
    script = Path(__file__).parents[2] / "examples" / "http_api.sh"
    async with running() as node:
        token = node.token("ops", scopes=tuple(Scope))
        process = await asyncio.create_subprocess_exec(
            *("bash", str(script), node.url, token),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        assert b'"seq":1' in output
