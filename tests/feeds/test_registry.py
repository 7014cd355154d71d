"""Tests opening feeds by name."""

from importlib import metadata
from pathlib import Path

import pytest

from server.feeds import FeedError, ReplayFeed, SimulatedFeed, open_feeds
from server.ports import Feed, FeedOptions
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


def open_feed(name: str, options: FeedOptions) -> Feed:
    [feed] = open_feeds([name], options, {}).values()
    return feed


@pytest.fixture
def options() -> FeedOptions:
    return FeedOptions(ManualClock(), seed=7)


def install(folder: Path, package: str, *entries: str) -> None:
    """Install a distribution with feeds, as pip does."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[floorcast.feeds]\n" + "\n".join(entries) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on `sys.path` with one module of feeds."""
    (tmp_path / "floorcast_echo.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


async def test_table_of_options_gives_a_feed_another_name(options: FeedOptions, site: Path) -> None:
    install(site, "echo", "echo = floorcast_echo:Echo")
    tables: dict[str, dict[str, object]] = {"one": {"source": "echo:A", "depth": 10}}
    feeds = open_feeds(["one", "echo:B"], options, tables)
    assert list(feeds) == ["one", "echo"]
    given = [vars(each)["options"] for each in feeds.values()]
    assert [(each.name, each.argument, each.options) for each in given] == [
        ("one", "A", {"depth": 10}),
        ("echo", "B", {}),
    ]


def test_two_feeds_of_one_name_are_refused(options: FeedOptions) -> None:
    with pytest.raises(FeedError, match=r"two feeds are named simulated: .* with a source"):
        open_feeds(["simulated", "simulated"], options, {})


def test_built_in_feeds_need_no_metadata(
    options: FeedOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing_installed(**_: object) -> metadata.EntryPoints:
        return metadata.EntryPoints()

    monkeypatch.setattr("server.plugins.entry_points", nothing_installed)
    (tmp_path / "a.jsonl").touch()
    assert isinstance(open_feed("simulated", options), SimulatedFeed)
    assert isinstance(open_feed(f"replay:{tmp_path / 'a.jsonl'}", options), ReplayFeed)


async def test_text_after_the_first_colon_is_the_argument(
    options: FeedOptions, tmp_path: Path
) -> None:
    file = tmp_path / "10:30:00.jsonl"
    file.write_text('{"ts": 1, "topic": "PRICE:A", "data": {}}\n')
    feed = open_feed(f"replay:{file}", options)
    recorder = PublishRecorder()
    await feed.run(recorder)
    assert len(recorder.messages) == 1


@pytest.mark.parametrize("name", ["simulated:8", "replay", "replay:", "replay:/no/such/file"])
def test_invalid_argument_of_a_built_in_feed_is_refused(options: FeedOptions, name: str) -> None:
    with pytest.raises(FeedError):
        open_feed(name, options)


@pytest.mark.parametrize("name", ["echo:A:B", "echo:"])
async def test_installed_package_provides_a_feed(
    options: FeedOptions, site: Path, name: str
) -> None:
    install(site, "echo", "echo = floorcast_echo:Echo")
    feed = open_feed(name, options)
    recorder = PublishRecorder()
    await feed.run(recorder)
    [line] = recorder.messages
    assert (line.topic, line.data) == (f"PRICE:{name.removeprefix('echo:')}", {"seed": 7})


def test_package_cannot_replace_a_built_in_feed(options: FeedOptions, site: Path) -> None:
    install(site, "echo", "simulated = floorcast_echo:Echo", "none = floorcast_echo:Echo")
    assert isinstance(open_feed("simulated", options), SimulatedFeed)


@pytest.mark.parametrize("name", ["simulate", "none:", "Simulated", ":simulated"])
def test_unknown_feed_error_lists_the_known_names(
    options: FeedOptions, site: Path, name: str
) -> None:
    install(site, "echo", "echo = floorcast_echo:Echo", "other = floorcast_echo:Echo")
    known = "ccxt, echo, kafka, nats, none, other, postgres, redis-stream, replay:FILE, simulated"
    with pytest.raises(FeedError, match=rf"use one of {known}$"):
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
def test_error_names_the_package_of_a_failing_feed(
    options: FeedOptions, site: Path, entry: str, reason: str
) -> None:
    install(site, "acme-feeds", f"bad = {entry}")
    with pytest.raises(FeedError, match=f"'bad' of acme-feeds .*{reason}"):
        open_feed("bad", options)


def test_feed_name_of_two_packages_is_refused(options: FeedOptions, site: Path) -> None:
    install(site, "one", "echo = floorcast_echo:Echo")
    install(site, "two", "echo = floorcast_echo:Echo")
    with pytest.raises(FeedError, match="several packages provide a feed 'echo': one, two"):
        open_feed("echo", options)


def test_feed_error_is_a_value_error() -> None:
    assert issubclass(FeedError, ValueError)
