"""Build the console anew, and run its tests in a browser."""

import filecmp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.programs import require_program
from tests.kit.server.demo import environ_without_settings

REPOSITORY = Path(__file__).parent.parent.parent
FOLDER = REPOSITORY / "console"
BUILT = REPOSITORY / "server" / "web" / "static"


def run_npx(*command: str, environ: dict[str, str] | None = None) -> None:
    assert (FOLDER / "node_modules").is_dir(), f"run `npm --prefix {FOLDER} ci` first"
    done = subprocess.run(
        ["npx", *command],
        cwd=FOLDER,
        env=environ or dict(os.environ),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def files_of(folder: Path) -> set[str]:
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()}


def test_committed_console_is_what_its_sources_build(tmp_path: Path) -> None:
    run_npx("vite", "build", "--logLevel", "error", "--outDir", str(tmp_path))
    built = files_of(tmp_path)
    assert "index.html" in built
    assert built == files_of(BUILT)
    _, changed, unreadable = filecmp.cmpfiles(BUILT, tmp_path, built, shallow=False)
    assert not changed + unreadable, "run `npm --prefix console run build` and commit the files"


@pytest.mark.browser
@pytest.mark.timeout(180)
def test_console_works_in_a_browser() -> None:
    require_program("chromium")
    # The tests start the demo themselves, since they restart it.
    environ = {**environ_without_settings(), "FLOORCAST_PYTHON": sys.executable}
    run_npx("vitest", "run", "--config", "vitest.browser.config.ts", environ=environ)
