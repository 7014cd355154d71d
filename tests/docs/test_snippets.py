"""Run the snippets of the documents as they stand, page by page, against the demo."""

import ast
import asyncio
import inspect
import json
import os
import re
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from floorcast.server import load_settings
from floorcast.testing import RECORDED_MARKET
from tests.docs.prepared import prepare
from tests.docs.snippets import REPOSITORY, Snippet, pages, snippets_of
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.demo import Demo, demo

# Snippets of other languages: client_js/test runs them, or nothing does.
_ELSEWHERE = {"html", "js", "javascript", "ts", "tsx", "mermaid", "sql", "ini", "text", ""}
# Shell snippets that cannot run in a test, by their first word or words.
_BY_HAND = {
    "python3 -m venv": "installs into a new environment: .ci/run does",
    "python3.11 -m venv": "the same",
    "venv/bin/pip install": "the same",
    "pip install": "the same",
    "venv/bin/python -m benchmarks": "takes many minutes",
    "gunicorn": "tests/embedding runs it",
    "python examples/embed.py": "takes port 8000; tests/js/test_embed.py runs it",
}


class _Enough(Exception):
    """Raised by a `print` inside of a loop, once it has printed enough: the loop has no end."""


@pytest.fixture(name="server", scope="module")
def run_server() -> Iterator[Demo]:
    # A high rate, so that no snippet waits for a trade.
    with demo(environ={"FLOORCAST_FEED__RATE": "200", "FLOORCAST_ADMIN__PORT": "0"}) as started:
        yield started


@pytest.mark.parametrize("page", [each for each in pages() if snippets_of(each)])
async def test_snippets_of_the_page_run(
    page: str, server: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # examples/embed.py shows that it runs; tests/journeys/test_examples.py runs it.
    monkeypatch.setattr(web, "run_app", lambda app, **options: None)
    folder = _working_folder(tmp_path)
    monkeypatch.chdir(folder)
    async with AsyncExitStack() as stack:
        names = await prepare(page, server, stack)
        for snippet in snippets_of(page):
            try:
                if snippet.language == "python":
                    printed = await _run_python(snippet, names, server)
                elif snippet.language == "sh":
                    printed = await _run_shell(snippet, server, folder)
                else:
                    _check_data(snippet, folder)
                    continue
            except Exception as error:
                raise AssertionError(f"{snippet} fails: {error!r}") from error
            for line in snippet.output.splitlines():
                assert _shape(line) in map(_shape, printed), f"{snippet} printed {printed}"


def _working_folder(tmp_path: Path) -> Path:
    """A folder like a clone with an environment and a recording."""
    (tmp_path / "venv").symlink_to(sys.prefix)
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    (tmp_path / "monday.jsonl").symlink_to(RECORDED_MARKET)
    return tmp_path


def _shape(line: str) -> str:
    """A line without what differs from run to run: numbers and epochs."""
    line = re.sub(r"(?<=epoch=')\w+|(?<=\"epoch\":\")\w+", "EPOCH", line)
    return re.sub(r"\d+(\.\d+)?", "N", line)


# Python


async def _run_python(snippet: Snippet, names: dict[str, Any], server: Demo) -> list[str]:
    code = snippet.code.replace("http://127.0.0.1:8000", server.url)
    code = code.replace('"TOKEN"', repr(server.tokens["ops"]))
    code = "\n" * (snippet.line - 1) + code
    looped = _lines_of_loops(code)
    printed: list[str] = []

    def write(*values: object, **_: object) -> None:
        printed.append(" ".join(map(str, values)))
        is_enough = len(printed) > snippet.output.count("\n")
        if is_enough and sys._getframe(1).f_lineno in looped:
            raise _Enough

    names["print"] = write
    compiled = compile(code, snippet.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    defined = set(names)
    try:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            if compiled.co_flags & inspect.CO_COROUTINE:
                await types.FunctionType(compiled, names)()
            else:
                await asyncio.to_thread(exec, compiled, names)
            for name in set(names) - defined:
                if name.startswith("test_"):
                    await names[name]()
    except _Enough:
        pass
    return printed


def _lines_of_loops(code: str) -> set[int]:
    """The lines inside of loops."""
    loops = (ast.For, ast.AsyncFor, ast.While)
    found = (each for each in ast.walk(ast.parse(code)) if isinstance(each, loops))
    return {line for each in found for line in range(each.lineno, (each.end_lineno or 0) + 1)}


# The shell


async def _run_shell(snippet: Snippet, server: Demo, folder: Path) -> list[str]:
    if any(snippet.code.startswith(each) for each in _BY_HAND):
        return []
    token = server.tokens["ops"]
    code = re.sub(r"http://(127\.0\.0\.1|localhost):8000", server.url, snippet.code)
    code = re.sub(r"(?<![$\w{])TOKEN(?![\w=])", token, code)
    code = code.replace("TOKEN=...", f"TOKEN={token}").replace("/var/lib/floorcast", "data")
    serves = "floorcast serve" in code
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", code),
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{folder / 'venv' / 'bin'}:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "FLOORCAST_URL": server.url,
            "FLOORCAST_TOKEN": token,
            "TOKEN": token,
            "URL": f"{server.url}/api/v1",
            "FLOORCAST_SERVER__PORT": "0",
            "FLOORCAST_AUTH__SECRET": "a secret for documents that is long enough",
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            return await _watch(process, serves=serves)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)


async def _watch(process: asyncio.subprocess.Process, *, serves: bool) -> list[str]:
    """What a script prints, until it ends or has printed enough."""
    assert process.stdout is not None
    printed: list[str] = []
    async for raw in process.stdout:
        printed.append(raw.decode().rstrip())
        if printed[-1].startswith("listening on ") if serves else len(printed) > 20:
            break
    else:
        assert await process.wait() == 0, printed
        return printed
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = await process.communicate()
    assert b"Traceback" not in rest, rest.decode()
    return printed


# Data


def _check_data(snippet: Snippet, folder: Path) -> None:
    if snippet.language == "json":
        decoder, text = json.JSONDecoder(), snippet.code.strip()
        while text:
            _, end = decoder.raw_decode(text)
            text = text[end:].lstrip()
    elif snippet.language == "toml":
        file = folder / "floorcast.toml"
        file.write_text(snippet.code)
        load_settings(flags={"auth.secret": "x" * 40}, file=file)
    else:
        assert snippet.language in _ELSEWHERE, f"nothing runs {snippet.language} snippets"


def test_pages_to_try_have_a_port_that_the_demo_leaves_free() -> None:
    port = load_settings().server.port
    for name in ("README.md", "examples/plain.html"):
        text = (REPOSITORY / name).read_text("utf-8")
        named = {int(each) for each in re.findall(r"http\.server (\d+)", text)}
        # Behind the server's port is that of its metrics.
        assert named
        assert not named & {port, port + 1000}, name
