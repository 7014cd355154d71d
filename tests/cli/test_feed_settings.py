"""Feeds and their tables of options in the settings."""

from pathlib import Path

import pytest

from server.access import ConfigurationError
from server.cli import main
from server.settings import load_settings


def test_table_of_a_feed_comes_from_the_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text(
        '[feed]\nname = "kraken, orders"\n'
        '[feed.kraken]\nsource = "ccxt:kraken"\ndepth = 10\n'
        '[feed.orders.subjects]\n"orders.>" = "ORDER_UPDATES"\n'
    )
    environ = {"FLOORCAST_FEED__KRAKEN__DEPTH": "25", "FLOORCAST_FEED__SYMBOLS": "BTCUSDT, ETHUSDT"}
    settings = load_settings(environ=environ, file=file)
    assert settings.feed.names == ("kraken", "orders")
    assert settings.feed.symbols == ("BTCUSDT", "ETHUSDT")
    assert settings.feed_options == {
        "kraken": {"source": "ccxt:kraken", "depth": "25"},
        "orders": {"subjects": {"orders.>": "ORDER_UPDATES"}},
    }


@pytest.mark.parametrize(("name", "names"), [("none", ()), ("a,b:c", ("a", "b:c"))])
def test_names_of_feeds_are_separated_by_commas(name: str, names: tuple[str, ...]) -> None:
    assert load_settings(flags={"feed.name": name}).feed.names == names


def test_number_of_symbols_may_come_from_the_environment() -> None:
    assert load_settings(environ={"FLOORCAST_FEED__SYMBOLS": "100"}).feed.symbols == 100
    with pytest.raises(ConfigurationError, match=r"feed\.symbols"):
        load_settings(environ={"FLOORCAST_FEED__SYMBOLS": "0"})


def test_unknown_setting_of_feeds_is_still_an_error() -> None:
    with pytest.raises(ConfigurationError, match="unknown setting FLOORCAST_FEED__NAMES"):
        load_settings(environ={"FLOORCAST_FEED__NAMES": "simulated"})


def test_check_hides_the_options_of_feeds(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {
        "FLOORCAST_AUTH__SECRET": "s" * 32,
        "FLOORCAST_FEED__NATS__URL": "nats://user:password@host",
    }
    assert main(["check"], environ) == 0
    out = capsys.readouterr().out
    assert "feed.nats.url = (set)\n" in out
    assert "password" not in out
