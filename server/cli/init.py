"""`floorcast init`: writes a commented configuration with a new secret."""

import argparse
import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from server.access import ConfigurationError, new_secret
from server.cli.sources import Commands
from server.settings import Settings, env_variable

_HEAD = """\
# The configuration of a Floorcast server. Start it with:
#     floorcast serve --config {file}
# Every setting stands here with its default; remove the # to change it. An environment variable
# overrides it: {variable}. The secret signs tokens: keep this file private.
"""
_WIDTH = 98


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "init",
        help="write a configuration file",
        description="Write a configuration with every setting explained, and a new secret.",
    )
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        default=Path("floorcast.toml"),
        metavar="FILE",
        help="default floorcast.toml; an existing file stays as it is",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    file: Path = arguments.file
    try:
        # Readable by its owner alone, because of the secret.
        descriptor = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        raise ConfigurationError(f"{file} exists: name another file") from None
    except OSError as error:
        raise ConfigurationError(f"cannot write {file}: {error.strerror}") from None
    with open(descriptor, "w", encoding="utf-8") as output:
        output.write(configuration(file, new_secret()))
    print(f"wrote {file}; start the server with: floorcast serve --config {file}")
    return 0


def configuration(file: Path, secret: str) -> str:
    """The text of a configuration in which only the secret is set."""
    lines = [_HEAD.format(file=file, variable=env_variable("server.port"))]
    for name, field in Settings.model_fields.items():
        lines += _section(name, field, secret)
    return "\n".join(lines)


def _section(path: str, field: FieldInfo, secret: str) -> Iterator[str]:
    model = field.annotation
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    yield from _comment(model.__doc__ or "")
    yield f"[{path}]"
    nested = []
    for name, each in model.model_fields.items():
        if isinstance(each.annotation, type) and issubclass(each.annotation, BaseModel):
            nested.append((name, each))
            continue
        yield from _comment(each.description or "")
        if (path, name) == ("auth", "secret"):
            yield f"secret = {json.dumps(secret)}"
        else:
            yield f"#{name} = {_value(each.default)}"
    yield ""
    for name, each in nested:
        yield from _section(f"{path}.{name}", each, secret)


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(text.split()), _WIDTH):
        yield f"# {line}"


def _value(default: object) -> str:
    """A default as TOML."""
    if default is None:
        return '"..."'
    if isinstance(default, tuple | list):
        return json.dumps(list(default))
    return json.dumps(default) if isinstance(default, str | bool | int | float) else f'"{default}"'
