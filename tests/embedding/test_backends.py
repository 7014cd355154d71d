"""The application's own backend, as an argument or as an installed package."""

from pathlib import Path

import pytest

from floorcast.server import (
    ApplicationBackend,
    ConfigurationError,
    Settings,
    create_app,
    load_settings,
)
from server.brokers import MemoryBroker
from tests.kit.clients.wire import RawClient
from tests.kit.clock import ManualClock
from tests.kit.server.in_process import PRICE, SECRET, running

PLUGIN = """
from floorcast.server import ApplicationBackend
from server.brokers import MemoryBroker


def create(options):
    if "broken" in options.url:
        raise RuntimeError("no such host")
    if "nothing" in options.url:
        return None
    return ApplicationBackend(MemoryBroker(options.clock, epoch="ours"))
"""


@pytest.fixture(name="installed", autouse=True)
def install_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a distribution with a backend, as pip does."""
    info = tmp_path / "floorcast_ours-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: floorcast-ours\nVersion: 1.0\n")
    entry = "[floorcast.backends]\nours = floorcast_ours:create\n"
    (info / "entry_points.txt").write_text(entry)
    (tmp_path / "floorcast_ours.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)


def settings(url: str) -> Settings:
    return load_settings(flags={"auth.secret": SECRET, "broker.url": url})


async def test_given_backend_is_used() -> None:
    clock = ManualClock()
    backend = ApplicationBackend(MemoryBroker(clock, epoch="given"))
    async with running(backend=backend, clock=clock) as node:
        client = await RawClient.connect(node.port, node.token())
        message = {"topic": "PRICE:A", "data": PRICE}
        reply = await client.call("publish", {"messages": [message]})
        assert reply["positions"] == [{"epoch": "given", "seq": 1}]
        client.cut()


async def test_scheme_of_the_url_names_an_installed_backend() -> None:
    async with running({"broker.url": "ours://host"}) as node:
        position = await node.server.market.publishing.publish("PRICE:A", PRICE)
        assert position.epoch == "ours"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("ours://broken", "the backend 'ours' of floorcast-ours failed to load: RuntimeError"),
        ("ours://nothing", "the backend 'ours' of floorcast-ours is no ApplicationBackend"),
    ],
)
def test_backend_that_cannot_be_opened_stops_the_start(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"broker\.url: {problem}"):
        create_app(settings(url))


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown scheme"):
        settings("theirs://host")
