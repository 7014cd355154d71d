"""Checks that the packages of `floorcast[server]` are installed."""

from importlib.util import find_spec

# One module of each package that the server cannot start without.
_SERVER_MODULES = ("cryptography", "engineio", "hiredis", "jwt", "orjson", "redis", "socketio")


class MissingServer(ImportError):
    """The client is installed without the server; the message says what to install."""


def require_server() -> None:
    """Raise `MissingServer` if a package of the server is missing."""
    missing = [name for name in _SERVER_MODULES if find_spec(name) is None]
    if missing:
        raise MissingServer(
            f"the server needs more packages ({', '.join(missing)}): "
            "run pip install 'floorcast[server]'"
        )
