"""The code of the previous version, for tests that run two versions side by side."""

import io
import subprocess
import tarfile
from pathlib import Path

# The last commit of 0.1: it was never tagged. From 0.2 on this is the tag of the last release.
PREVIOUS = "c14d87d23f0876870bce962c86eeeb3c526fb96f"
_ROOT = Path(__file__).parents[3]


def extract_previous(folder: Path) -> Path:
    """Write the previous version's packages into a folder: start it there as a server."""
    archive = subprocess.run(
        ["git", "archive", PREVIOUS, "client_sdk", "server"],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as packed:
        packed.extractall(folder, filter="data")
    return folder
