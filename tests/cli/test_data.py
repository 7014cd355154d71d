"""Tests the commands for a data folder: `serve --data`, `check --data`, `backup`."""

from pathlib import Path

import pytest

from server.access import ConfigurationError
from server.brokers.file.schema import FILE_NAME
from server.cli import main
from server.settings import load_settings
from tests.kit.rigs.file_node import file_node


async def write_messages(folder: Path) -> None:
    async with file_node(folder) as node:
        for channel in ("A", "B"):
            await node.broker.publish(channel, b"{}", 1, in_history=True)


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("file:data", Path("data")),
        ("file:/var/lib/floorcast", Path("/var/lib/floorcast")),
        ("file:///var/lib/floorcast", Path("/var/lib/floorcast")),
    ],
)
def test_file_url_names_a_folder(url: str, folder: Path) -> None:
    broker = load_settings(flags={"broker.url": url}).broker
    assert (broker.url.folder, broker.url.in_memory, str(broker.url)) == (folder, False, url)


def test_file_url_without_a_folder_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"file: needs a folder"):
        load_settings(flags={"broker.url": "file:"})


def test_several_workers_need_redis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in ([], ["--demo"]):
        assert main(["serve", "--data", str(tmp_path), "--workers", "2", *flags], {}) == 2
        assert "2 workers need a Redis" in capsys.readouterr().err


async def test_check_counts_the_rows_of_a_data_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--data", str(tmp_path)], {}) == 2
    assert "has no data file" in capsys.readouterr().err
    await write_messages(tmp_path)
    assert main(["check", "--data", str(tmp_path)], {}) == 0
    assert "entries = 2\n" in capsys.readouterr().out


async def test_check_repairs_a_damaged_data_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await write_messages(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"no database")
    assert main(["check", "--data", str(tmp_path)], {}) == 2
    assert main(["check", "--data", str(tmp_path), "--repair"], {}) == 0
    assert f"{FILE_NAME}.damaged-1" in capsys.readouterr().out
    assert main(["check", "--data", str(tmp_path)], {}) == 0


async def test_backup_copies_the_file_of_a_running_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with file_node(tmp_path / "a") as node:
        await node.broker.publish("A", b"{}", 1, in_history=True)
        (tmp_path / "b").mkdir()
        command = ["backup", "--data", str(tmp_path / "a"), str(tmp_path / "b" / FILE_NAME)]
        assert main(command, {}) == 0
        assert main(command, {}) == 2
        assert "exists" in capsys.readouterr().err
        assert main(["check", "--data", str(tmp_path / "a")], {}) == 2
        assert "in use by process" in capsys.readouterr().err
    async with file_node(tmp_path / "b") as node:
        assert (await node.broker.head("A")).seq == 1
