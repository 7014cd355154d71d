"""The flags that stand for settings, and the file that may hold more."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.settings import Settings, load_settings

Commands = Any  # argparse's own name for what `add_subparsers` returns is private


def add_config(parser: argparse.ArgumentParser) -> None:
    """Let the command take a settings file."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as a TOML file")


def settings_from(
    arguments: argparse.Namespace,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Merge the command's flags with the environment and the file."""
    return load_settings(flags=flags, environ=environ, file=arguments.config)
