"""Test the catalogue: its rows, and when a row counts as shown."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests import conftest
from tests.behaviours.__main__ import missing
from tests.behaviours.catalogue import NOT_YET_DUE, ROWS, rows
from tests.kit.patience import MAX_WAIT_SECONDS

DUE = [row for row in ROWS if row not in NOT_YET_DUE]

SUITE = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError

@pytest.fixture
def broken_behind():
    yield
    raise RuntimeError

@pytest.mark.behaviour("A1")
def test_passing(): pass

@pytest.mark.behaviour("A2")
def test_failing(): assert False

@pytest.mark.behaviour("A3")
def test_not_set_up(broken): pass

@pytest.mark.behaviour("A4")
def test_not_torn_down(broken_behind): pass

@pytest.mark.behaviour("A5")
def test_skipped(): pytest.skip("not here")

@pytest.mark.behaviour("A5")
@pytest.mark.skip
def test_never_tried(): pass
"""


def test_catalogue_has_the_rows_of_all_five_systems() -> None:
    expected = rows("A1-A18 B1-B23 C1-C18 D1-D50 E1-E15")
    assert list(ROWS) == expected
    assert set(expected) > NOT_YET_DUE


def test_row_is_missing_without_a_passing_test() -> None:
    shown = {row: ["passed", "passed"] for row in DUE}
    assert missing(shown) == []
    assert missing({**shown, "A2": ["passed", "failed"]}) == ["A2"]
    del shown["D5"]
    assert missing(shown) == ["D5"]
    assert missing({}) == DUE


def test_only_passing_tests_show_a_row(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "conftest.py").write_text(Path(conftest.__file__).read_text())
    (tmp_path / "tests" / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = behaviour(row)\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    # The copied conftest imports the project from its own folder.
    ours = {**os.environ, "PYTHONPATH": str(conftest.RECORD.parent)}
    subprocess.run(
        command, cwd=tmp_path, capture_output=True, timeout=MAX_WAIT_SECONDS, check=False, env=ours
    )
    recorded = json.loads((tmp_path / conftest.RECORD.name).read_text())
    assert recorded == {
        "A1": ["passed"],
        "A2": ["failed"],
        "A3": ["failed"],
        "A4": ["passed", "failed"],
    }
