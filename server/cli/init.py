"""`floorcast init`: writes a commented configuration with a new secret."""

import argparse
import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel

from server.access import ConfigurationError, new_secret
from server.cli.sources import Commands
from server.settings import env_variable, sections, setting_names

_HEAD = """\
# The configuration of a Floorcast server. Start it with:
#     floorcast serve --config {file}
# Every setting stands here with its default; remove the # to change it. An environment variable
# overrides it: {variable}. The secret signs tokens: keep this file private.
"""
_WIDTH = 98
_NAMES = frozenset(setting_names())


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
    for section, model in sections():
        lines += _section(section, model, secret)
    return "\n".join(lines)


def _section(section: str, model: type[BaseModel], secret: str) -> Iterator[str]:
    yield from _comment(model.__doc__ or "")
    yield f"[{section}]"
    for name, field in model.model_fields.items():
        if f"{section}.{name}" not in _NAMES:
            # A section of its own.
            continue
        yield from _comment(field.description or "")
        if (section, name) == ("auth", "secret"):
            yield f"secret = {json.dumps(secret)}"
        else:
            yield f"#{name} = {_value(field.default)}"
    yield ""


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
