"""Find the programs that tests need beside Python; CI must have all of them."""

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """The path of a program; skip the test if it is missing, or fail it with CI=true."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed: install it to run this test"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return path
