"""Exports that a package imports when they are used (PEP 562): what is not used costs no start."""

from collections.abc import Callable, Iterable, Mapping
from importlib import import_module


def lazy_exports(modules: Mapping[str, Iterable[str]]) -> Callable[[str], object]:
    """The `__getattr__` of a package, from the names of each module."""
    module_of = {name: module for module, names in modules.items() for name in names}

    def export(name: str) -> object:
        module = module_of.get(name)
        if module is None:
            raise AttributeError(f"no such name: {name}")
        return getattr(import_module(module), name)

    return export
