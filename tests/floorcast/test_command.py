"""The command `floorcast` starts in any folder, and says what is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent.parent
# Packages of the same names as ours, in the working directory of the user.
STRANGERS = ("server", "client_sdk", "redis")


@pytest.fixture(name="folder")
def folder_with_strangers(tmp_path: Path) -> Path:
    for name in STRANGERS:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    return tmp_path


def run(*arguments: str, folder: Path, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "floorcast"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, "-P", *start, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_command_ignores_packages_in_the_working_directory(folder: Path) -> None:
    done = run("--version", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("floorcast ")


def test_command_without_the_server_says_what_to_install(folder: Path) -> None:
    hide = "import sys; sys.modules['jwt'] = sys.modules['redis'] = None; "
    done = run(
        "serve", folder=folder, code=f"{hide}from floorcast.command import main; sys.exit(main())"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "floorcast: the server needs more packages (jwt, redis): "
        "run pip install 'floorcast[server]'\n"
    )


def test_import_without_the_server_says_what_to_install(folder: Path) -> None:
    hide = "import sys; sys.modules['socketio'] = None; "
    done = run(folder=folder, code=f"{hide}import floorcast.server")
    assert done.returncode == 1
    assert done.stderr.endswith("(socketio): run pip install 'floorcast[server]'\n")


def test_command_ends_quietly_if_nobody_reads_its_output(folder: Path) -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-P", "-m", "floorcast", "contract", "--format", "typescript"]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=writes,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, "")
