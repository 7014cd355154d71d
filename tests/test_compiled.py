"""The installation: what setup.cfg lists exists, and is compiled where that was asked for."""

import os
from configparser import RawConfigParser
from importlib import import_module
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from pkgutil import walk_packages

import server
from server.compiled import IS_COMPILED

ROOT = Path(__file__).parents[1]


def modules_to_compile() -> list[str]:
    config = RawConfigParser()
    config.read(ROOT / "setup.cfg", "utf-8")
    return config["mypyc"]["modules"].split()


def module_name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def test_all_modules_of_delivery_are_listed() -> None:
    listed = modules_to_compile()
    assert all((ROOT / file).is_file() for file in listed)
    in_delivery = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "server/delivery").iterdir()
    }
    missing = {file for file in in_delivery.difference(listed) if file.endswith(".py")}
    assert missing == {"server/delivery/__init__.py"}


def test_all_listed_modules_are_compiled_or_none() -> None:
    loaders = {type(import_module(module_name(file)).__loader__) for file in modules_to_compile()}
    assert len(loaders) == 1
    assert loaders == {ExtensionFileLoader} or not IS_COMPILED
    # Set by `tox -e compiled`.
    assert IS_COMPILED or os.environ.get("FLOORCAST_COMPILE") != "1"


def test_what_extends_a_listed_class_is_listed_too() -> None:
    # A class in Python cannot extend a compiled one: making its objects raises TypeError.
    for module in walk_packages(server.__path__, "server."):
        if not module.name.startswith(("server.feeds.sources.ccxt", "server.cli.__main__")):
            import_module(module.name)
    listed = {module_name(file) for file in modules_to_compile()}
    for name in listed:
        for value in vars(import_module(name)).values():
            if isinstance(value, type) and value.__module__ == name:
                extending: list[type] = value.__subclasses__()
                ours = {
                    each.__module__ for each in extending if each.__module__.startswith("server.")
                }
                assert ours <= listed, value


def test_no_compiled_file_lies_beside_the_source() -> None:
    # It would hide all changes of the module.
    for pattern in ("*.so", "*.pyd"):
        assert not list((ROOT / "server").rglob(pattern))
