"""Tests the demo with a configuration."""

import asyncio
from pathlib import Path

from server.access import AccessConfig, build_verifier
from server.server import SystemClock
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
    assert len(tokens) == 3


def tokens_of_the_demo(file: Path, environ: dict[str, str]) -> dict[str, str]:
    with demo("--config", str(file), environ=environ) as started:
        return started.tokens
