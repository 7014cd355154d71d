"""Whether this installation is compiled: see docs/operations.md."""

from importlib.machinery import ExtensionFileLoader

from server.core import counters

# All modules that setup.cfg lists are compiled, or none.
IS_COMPILED = counters.__spec__ is not None and isinstance(
    counters.__spec__.loader, ExtensionFileLoader
)
