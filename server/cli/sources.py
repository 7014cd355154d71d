"""Loads the settings of a command from flags, environment and file."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.settings import Settings, load_settings

Commands = Any  # argparse's own name for what `add_subparsers` returns is private


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the flag for a settings file."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings as a TOML file")


def add_data(parser: argparse.ArgumentParser, *, required: bool, what: str) -> None:
    """Add the flag for a data folder."""
    parser.add_argument("--data", type=Path, metavar="FOLDER", required=required, help=what)


def settings_from(
    arguments: argparse.Namespace,
    environ: Mapping[str, str],
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Load the settings; flags override the environment, which overrides the file."""
    return load_settings(flags=flags, environ=environ, file=arguments.config)
