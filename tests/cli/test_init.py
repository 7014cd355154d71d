"""`floorcast init` writes a configuration that serves as it is, and explains every setting."""

import stat
import tomllib
from pathlib import Path

import pytest

from server.cli import main
from server.cli.init import configuration
from server.settings import load_settings, setting_names


def test_written_configuration_has_a_secret_and_is_private(tmp_path: Path) -> None:
    file = tmp_path / "floorcast.toml"
    assert main(["init", str(file)], {}) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secret = load_settings(file=file).auth.secret
    assert secret is not None
    assert len(secret.get_secret_value()) >= 32
    other = tmp_path / "other.toml"
    assert main(["init", str(other)], {}) == 0
    assert load_settings(file=other).auth.secret != secret


def test_every_setting_stands_in_it_with_its_default(tmp_path: Path) -> None:
    text = configuration(Path("floorcast.toml"), "s" * 32)
    lines = [
        line[1:] if line[:1] == "#" and line[1:2].islower() else line for line in text.splitlines()
    ]
    set_again = tomllib.loads("\n".join(lines))
    names = {f"{section}.{name}" for section, table in set_again.items() for name in _names(table)}
    assert names == set(setting_names())


def _names(table: dict[str, object], prefix: str = "") -> list[str]:
    names = []
    for name, value in table.items():
        names += _names(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return names


def test_existing_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "floorcast.toml"
    file.write_text("mine")
    assert main(["init", str(file)], {}) == 2
    assert "exists: name another file" in capsys.readouterr().err
    assert file.read_text() == "mine"
