"""Finds what installed packages offer under the entry points of Floorcast."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any


class PluginError(Exception):
    """An entry point is ambiguous, or what it offers cannot be used; the message says whose."""


def plugin_names(group: str) -> set[str]:
    """The names of all entry points of a group."""
    return set(entry_points(group=group).names)


def create_plugin(
    group: str, name: str, kind: str, options: object, problem_of: Callable[[Any], str | None]
) -> Any:
    """Call the factory of an entry point with these options; None if no package has it.

    Raises `PluginError` if several packages have it, if it fails, or if there is a problem with
    what it returns.
    """
    matching = [offer for offer in entry_points(group=group) if offer.name == name]
    if not matching:
        return None
    packages = _package_names(matching)
    if len(matching) > 1:
        # The order of entry points depends on the installation.
        raise PluginError(f"several packages provide a {kind} {name!r}: {packages}")
    try:
        plugin = matching[0].load()(options)
    # Third-party code may raise anything.
    except Exception as error:
        raise PluginError(
            f"the {kind} {name!r} of {packages} failed to load: {type(error).__name__}: {error}"
        ) from error
    problem = problem_of(plugin)
    if problem is not None:
        raise PluginError(f"the {kind} {name!r} of {packages} {problem}")
    return plugin


def _package_names(candidates: list[EntryPoint]) -> str:
    return ", ".join(sorted(offer.dist.name if offer.dist else "?" for offer in candidates))
