"""The command `likeness`: the commands of all packages under one parser."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from types import ModuleType

from . import __version__
from .comparison import cli as comparison
from .trainers import cli as trainers
from .trainers.errors import LikenessError
from .trainers.files import is_disk_full


def build_parser() -> argparse.ArgumentParser:
    """The parser; each command's `run` takes its arguments and returns an exit code."""
    parser = argparse.ArgumentParser(
        prog="likeness", description="Teach Stable Diffusion 1.5 one subject from photographs."
    )
    parser.add_argument("--version", action="version", version=f"likeness {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for package in (trainers, comparison, *_import_demo("cli")):
        package.add_commands(commands)
    # comparison/ must not import demo/: the judge of the drawn world is passed to it here.
    parser.set_defaults(encoders=[module.find_judge for module in _import_demo("encoder")])
    return parser


def _import_demo(module: str) -> list[ModuleType]:
    """A module of demo/, which may be missing: then an empty list."""
    name = f"{__package__}.demo.{module}"
    try:
        return [import_module(name)]
    except ModuleNotFoundError as error:
        # The folder may still exist, with outputs in it.
        if error.name not in (name, name.rpartition(".")[0]):
            raise
        return []


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Errors meant for the user go to stderr, with exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # redirected on Windows, it cannot encode arrows
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(arguments)
    # It warns at import about kernels that are not used here.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        code = int(args.run(args))
        sys.stdout.flush()
        return code
    except LikenessError as error:
        print(f"likeness: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader closed the pipe, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 141
    except OSError as error:  # a full disk, a folder without write permission
        full = "The disk is full. Free some space and run the same command again. "
        print(f"likeness: {full if is_disk_full(error) else ''}{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
