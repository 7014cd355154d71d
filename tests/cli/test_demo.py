"""Tests the demo with a configuration."""

import asyncio
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from server.access import AccessConfig, build_verifier
from server.server import SystemClock
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.server.demo import demo

SECRET = "a secret that is long enough for all of this"


async def test_demo_tokens_match_the_configuration(
    tmp_path: Path,
) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text(f'[auth]\nsecret = "{SECRET}"\naudience = "floor"\n')
    environ = {"FLOORCAST_AUTH__ISSUER": "me"}
    tokens = await asyncio.to_thread(tokens_of_the_demo, file, environ)
    config = AccessConfig(secret=SECRET, issuer="me", audience="floor")
    verifier = build_verifier(config, SystemClock())
    assert [(await verifier.verify(token)).user_id for token in tokens.values()] == list(tokens)
    assert len(tokens) == 4


def tokens_of_the_demo(file: Path, environ: dict[str, str]) -> dict[str, str]:
    with demo("--config", str(file), environ=environ) as started:
        return started.tokens


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:5173", 200),
        ("https://desk.example", 200),
        ("https://evil.example", 403),
    ],
)
async def test_demo_lets_pages_of_this_machine_and_of_listed_origins_in(
    origin: str, status: int
) -> None:
    assert await asyncio.to_thread(status_of_a_handshake, origin) == status


def status_of_a_handshake(origin: str) -> int:
    with demo("--feed", "none", "--origin", "https://desk.example") as started:
        url = f"{started.url}/socket.io/?EIO=4&transport=polling"
        try:
            with urlopen(
                Request(url, headers={"Origin": origin}), timeout=MAX_WAIT_SECONDS
            ) as response:
                return int(response.status)
        except HTTPError as error:
            return error.code
