"""Run HAProxy and nginx with the example configurations, on free ports."""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.kit.network.ports import free_port
from tests.kit.patience import MAX_WAIT_SECONDS
from tests.kit.programs import require_program

EXAMPLES = Path(__file__).parents[3] / "examples" / "deploy"
COMMANDS = {
    "haproxy": ("haproxy.cfg", ("-db", "-q", "-f")),
    "nginx": ("nginx.conf", ("-g", "daemon off;", "-c")),
}


@contextlib.contextmanager
def run_proxy(name: str, folder: Path, nodes: tuple[int, int]) -> Iterator[int]:
    """Run a proxy in front of these ports until the block ends; yield its own port."""
    path = require_program(name)
    file, flags = COMMANDS[name]
    port = free_port()
    text = (EXAMPLES / file).read_text()
    for example_port, own_port in zip((8000, 8001, 8002), (port, *nodes), strict=True):
        assert f"127.0.0.1:{example_port}" in text
        text = text.replace(f"127.0.0.1:{example_port}", f"127.0.0.1:{own_port}")
    if name == "nginx":
        (folder / "logs").mkdir()
        text = f"pid {folder}/nginx.pid;\nerror_log stderr crit;\n" + text.replace(
            "http {\n",
            "http {\n"
            + "".join(
                f"    {each}_temp_path {folder}/{each};\n"
                for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
        )
    config = folder / file
    config.write_text(text)
    process = subprocess.Popen([path, *flags, str(config)])
    try:
        ends_at = time.monotonic() + MAX_WAIT_SECONDS
        while process.poll() is None and time.monotonic() < ends_at:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.01)
        assert process.poll() is None, f"{name} does not start: check {config}"
        yield port
    finally:
        process.terminate()
        process.wait(MAX_WAIT_SECONDS)
