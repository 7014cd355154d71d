"""docs/sdk.md names everything public, every error code and every setting."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import client_sdk
import client_sdk.data
from client_sdk import ClientConfig, FloorcastError, Stats

WORDS = (Path(__file__).parent.parent.parent / "docs" / "sdk.md").read_text()
NAMED = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`\n]+`", WORDS))))


def kinds(root: type[FloorcastError]) -> Iterator[type[FloorcastError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


@pytest.mark.parametrize("name", client_sdk.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert name in NAMED


@pytest.mark.parametrize("error", list(kinds(FloorcastError))[1:], ids=lambda kind: kind.__name__)
def test_every_error_is_documented_with_its_code(error: type[FloorcastError]) -> None:
    row = re.search(rf"^\| `{error.__name__}` \|.*$", WORDS, re.MULTILINE)
    assert row
    if error.default_code != FloorcastError.default_code:
        assert f"`{error.default_code}`" in row[0]


@pytest.mark.parametrize("settings", [ClientConfig, Stats])
def test_every_setting_and_counter_is_documented(settings: type[ClientConfig | Stats]) -> None:
    assert set(settings.__dataclass_fields__) <= NAMED
