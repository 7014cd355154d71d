"""`floorcast completion`: prints what makes a shell complete the commands."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

import shtab

_HOW = """\
bash: floorcast completion bash > ~/.local/share/bash-completion/completions/floorcast
zsh:  floorcast completion zsh > "${fpath[1]}/_floorcast"
"""


def add_to(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Print a script with which a shell completes the commands and their options.",
        epilog=_HOW,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=tuple(shtab.SUPPORTED_SHELLS))
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    from floorcast.command import full_parser

    sys.stdout.write(shtab.complete(full_parser(), arguments.shell))
    return 0
