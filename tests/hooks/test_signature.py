"""The checks of signatures that docs/hooks.md offers accept ours and nothing else."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server.hooks import signature

_DOC = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
SECRET, BODY = "a secret for webhooks", '{"events":[{"user_id":"ü"}]}'.encode()

Check = Callable[[str, str, bytes], bool]


def check_in_python(secret: str, header: str, body: bytes) -> bool:
    [code] = re.findall(r"```python\n(.*?)```", _DOC, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return bool(names["is_signed"](secret, header, body))


def check_in_javascript(secret: str, header: str, body: bytes) -> bool:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    [code] = re.findall(r"```javascript\n(.*?)```", _DOC, re.DOTALL)
    call = f"isSigned({json.dumps(secret)}, {json.dumps(header)}, Buffer.from({list(body)}))"
    script = f"{code}\nconsole.log({call})"
    run = subprocess.run(
        [node, "--input-type=module", "-e", script], capture_output=True, text=True, check=True
    )
    return run.stdout.strip() == "true"


@pytest.mark.parametrize("check", [check_in_python, check_in_javascript])
def test_documented_check_accepts_only_our_signature(check: Check) -> None:
    now = time.time()
    header = signature(SECRET, BODY, now)
    assert check(SECRET, header, BODY)
    assert not check("another secret", header, BODY)
    assert not check(SECRET, header, BODY + b" ")
    assert not check(SECRET, signature(SECRET, BODY, now - 301), BODY)
    later = header.replace(f"t={int(now)}", f"t={int(now) + 1}")
    assert not check(SECRET, later, BODY)
    assert not check(SECRET, "t=1", BODY)
