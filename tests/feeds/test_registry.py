"""Opening feeds by name: ours, those of installed packages, and those that there are not."""

from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

from server.feeds import FeedError, ReplayFeed, SimulatedFeed, open_feed
from server.ports import FeedOptions
from tests.feeds.tape import PublishRecorder
from tests.kit.clock import ManualClock

PLUGIN = '''
class Echo:
    """Publishes its argument and its seed."""

    def __init__(self, options):
        self.options = options

    async def run(self, publishing):
        options = self.options
        await publishing.publish(f"PRICE:{options.argument}", {"seed": options.seed})


def fails(options):
    raise RuntimeError("no key for the exchange")


def nothing(options):
    return None
'''


@pytest.fixture
def options() -> FeedOptions:
    return FeedOptions(ManualClock(), seed=7)


def install(folder: Path, package: str, *entries: str) -> None:
    """A distribution that brings feeds, as pip leaves it behind."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[floorcast.feeds]\n" + "\n".join(entries) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of packages, with one module of feeds."""
    (tmp_path / "floorcast_echo.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_none_is_no_feed(options: FeedOptions) -> None:
    assert open_feed("none", options) is None


def test_ours_are_there_without_metadata(
    options: FeedOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_installed(**_: object) -> metadata.EntryPoints:
        return metadata.EntryPoints()

    monkeypatch.setattr("server.feeds.registry.entry_points", nothing_installed)
    (tmp_path / "a.jsonl").touch()
    assert isinstance(open_feed("simulated", options), SimulatedFeed)
    assert isinstance(open_feed(f"replay:{tmp_path / 'a.jsonl'}", options), ReplayFeed)


async def test_all_after_the_first_colon_is_the_file(options: FeedOptions, tmp_path: Path) -> None:
    file = tmp_path / "10:30:00.jsonl"
    file.write_text('{"ts": 1, "topic": "PRICE:A", "data": {}}\n')
    feed = open_feed(f"replay:{file}", options)
    assert feed is not None
    tape = PublishRecorder()
    await feed.run(tape)
    assert len(tape.messages) == 1


def test_a_name_without_a_colon_leaves_the_argument_of_the_options(
    options: FeedOptions, tmp_path: Path
) -> None:
    (tmp_path / "a.jsonl").touch()
    options = replace(options, argument=str(tmp_path / "a.jsonl"))
    assert isinstance(open_feed("replay", options), ReplayFeed)
    with pytest.raises(FeedError, match="needs a file"):
        open_feed("replay:", options)


@pytest.mark.parametrize("name", ["simulated:8", "replay", "replay:", "replay:/no/such/file"])
def test_a_name_that_ours_cannot_use_is_refused(options: FeedOptions, name: str) -> None:
    with pytest.raises(FeedError):
        open_feed(name, options)


@pytest.mark.parametrize("name", ["echo:A:B", "echo:"])
async def test_an_installed_package_may_bring_a_feed(
    options: FeedOptions, site: Path, name: str
) -> None:
    install(site, "echo", "echo = floorcast_echo:Echo")
    feed = open_feed(name, options)
    assert feed is not None
    tape = PublishRecorder()
    await feed.run(tape)
    [line] = tape.messages
    assert (line.topic, line.data) == (f"PRICE:{name.removeprefix('echo:')}", {"seed": 7})


def test_a_package_cannot_take_the_name_of_ours(options: FeedOptions, site: Path) -> None:
    install(site, "echo", "simulated = floorcast_echo:Echo", "none = floorcast_echo:Echo")
    assert isinstance(open_feed("simulated", options), SimulatedFeed)
    assert open_feed("none", options) is None


@pytest.mark.parametrize("name", ["simulate", "", "none:", "Simulated", ":simulated"])
def test_an_unknown_name_is_answered_with_those_there_are(
    options: FeedOptions, site: Path, name: str
) -> None:
    install(site, "echo", "echo = floorcast_echo:Echo", "other = floorcast_echo:Echo")
    with pytest.raises(FeedError, match=r"there are echo, none, other, replay:FILE, simulated$"):
        open_feed(name, options)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("floorcast_nowhere:Echo", "ModuleNotFoundError"),
        ("floorcast_echo:Missing", "AttributeError"),
        ("floorcast_echo:fails", "RuntimeError: no key for the exchange"),
        ("floorcast_echo:nothing", "no run method"),
    ],
)
def test_a_feed_that_fails_to_load_or_to_build_is_named_with_its_package(
    options: FeedOptions, site: Path, entry: str, reason: str
) -> None:
    install(site, "acme-feeds", f"bad = {entry}")
    with pytest.raises(FeedError, match=f"'bad' of acme-feeds .*{reason}"):
        open_feed("bad", options)


def test_a_name_that_two_packages_bring_is_refused(options: FeedOptions, site: Path) -> None:
    install(site, "one", "echo = floorcast_echo:Echo")
    install(site, "two", "echo = floorcast_echo:Echo")
    with pytest.raises(FeedError, match="several packages bring a feed 'echo': one, two"):
        open_feed("echo", options)


def test_a_feed_error_is_a_value_error() -> None:
    assert issubclass(FeedError, ValueError)
