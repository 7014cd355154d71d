"""Programs that tests need beside Python: who lacks one is told, and CI may not lack any."""

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """Its path; without it the test is skipped, and with CI=true it fails."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed: this was not tested"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
