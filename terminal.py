"""The command `likeness`: the commands of every room under one parser."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from types import ModuleType

from . import __version__
from .comparison import terminal as comparison
from .trainers import terminal as trainers
from .trainers.errors import LikenessError


def build_parser() -> argparse.ArgumentParser:
    """The parser; each command's `run` takes its arguments and returns an exit code."""
    parser = argparse.ArgumentParser(
        prog="likeness", description="Teach Stable Diffusion 1.5 one subject from photographs."
    )
    parser.add_argument("--version", action="version", version=f"likeness {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for room in (trainers, comparison, *_demo()):
        room.add_commands(commands)
    return parser


def _demo() -> list[ModuleType]:
    """The room that may be left out."""
    try:
        from .demo import terminal as demo
    except ImportError as error:
        if error.name != f"{__package__}.demo":
            raise
        return []
    return [demo]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Errors meant for the user go to stderr, with exit code 1."""
    given = build_parser().parse_args(arguments)
    # It warns at import of kernels that nothing here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        return int(given.run(given))
    except LikenessError as error:
        print(f"likeness: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
