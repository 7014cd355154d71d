"""Find free TCP ports."""

import contextlib
import os
import random
import socket

# Below the ephemeral ports, one of which any outgoing connection may take at any time. A worker of
# pytest-xdist has its share of them: a restarting server of another one may have closed a port.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = range(20_000, 32_000)[_WORKER % 24 :: 24]
_returned: set[int] = set()
# Not seeded: two runs at the same time choose different ports.
_random = random.SystemRandom()


def free_port() -> int:
    """A port without a listener, never returned again: its user may not listen yet."""
    while True:
        port = _random.choice(_PORTS)
        if port in _returned:
            continue
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            _returned.add(port)
            return port


def free_ports(count: int) -> list[int]:
    """Different free ports."""
    return [free_port() for _ in range(count)]
