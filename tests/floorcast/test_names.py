"""Users import `floorcast` alone: it has every public name, and documents and examples use it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import client_sdk
import client_sdk.data
import floorcast
import floorcast.data
import floorcast.server

ROOT = Path(__file__).parent.parent.parent
INTERNAL_IMPORT = re.compile(r"^\s*(?:>>> )?(?:from|import) (?:client_sdk|server)\b", re.MULTILINE)
WRITTEN_FOR_USERS = [
    ROOT / "README.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").glob("**/*.py"),
]


def test_floorcast_exports_every_public_name_of_the_sdk() -> None:
    assert set(floorcast.__all__) == {*client_sdk.__all__, "__version__"}
    assert all(getattr(floorcast, name) is getattr(client_sdk, name) for name in floorcast.__all__)


@pytest.mark.parametrize("module", [floorcast.data, floorcast.server])
def test_module_exports_only_what_it_has(module: object) -> None:
    names = vars(module)["__all__"]
    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(module, name) for name in names)


@pytest.mark.parametrize("path", WRITTEN_FOR_USERS, ids=lambda path: path.name)
def test_document_or_example_imports_floorcast_alone(path: Path) -> None:
    assert INTERNAL_IMPORT.findall(path.read_text()) == []


def test_client_does_not_import_the_server() -> None:
    code = "import sys, floorcast, floorcast.data; sys.exit('server' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
