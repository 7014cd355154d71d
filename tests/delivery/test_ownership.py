"""Tests that each object of delivery writes only its own fields: others have methods for that."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import server.delivery

SOURCES = sorted(Path(str(server.delivery.__file__)).parent.glob("*.py"))
MUTATORS = (
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert"),
    *("pop", "popitem", "popleft", "remove", "setdefault", "update"),
)
# Not a set: `Counters.add` is its method.
NOT_CONTAINERS = ("counters",)


def is_foreign(target: ast.expr) -> bool:
    """Whether a target lies in an attribute of another object than `self`."""
    depth = 0
    while isinstance(target, ast.Attribute | ast.Subscript):
        depth += isinstance(target, ast.Attribute)
        target = target.value
    return depth > (isinstance(target, ast.Name) and target.id == "self")


def targets(node: ast.AST) -> Iterator[ast.expr]:
    """What a statement assigns or deletes, and the container that a call changes."""
    match node:
        case ast.Assign(targets=several) | ast.Delete(targets=several):
            for each in several:
                yield from each.elts if isinstance(each, ast.Tuple) else [each]
        case ast.AugAssign(target=target) | ast.AnnAssign(target=target):
            yield target
        case ast.Call(func=ast.Attribute(value=ast.Attribute() | ast.Subscript(), attr=name)):
            assert isinstance(node.func, ast.Attribute)
            if name in MUTATORS and not ast.unparse(node.func.value).endswith(NOT_CONTAINERS):
                yield node.func.value


def foreign_writes(source: str) -> list[str]:
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if any(map(is_foreign, targets(node)))
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_module_writes_no_fields_of_other_objects(path: Path) -> None:
    assert foreign_writes(path.read_text()) == []


def test_writes_into_other_objects_are_found() -> None:
    source = """
self.link = link
self._due[interval_ms][channel] = None
client.link = link
self._tiers.due[interval_ms] = None
tier.last_seq, tier.oldest_ms = 1, None
del channel.parked[client]
channel.parked.pop(client)
channel.leave(client)
self._waiting.pop(client)
"""
    assert len(foreign_writes(source)) == 5
