"""`likeness demo`: the whole experiment on the miniature, without any download.

It is `likeness compare miniature` with the files of this room: class images, tiny, standard and
the three LoRAs are trained, base and all five draw the six prompts, two of them with poses too.
"""

from __future__ import annotations

import argparse
import os
import shlex
import time
from pathlib import Path

from ..comparison import cli
from . import weights
from .encoder import find_judge
from .subject import FOLDER as PHOTOS

PLAN = "miniature"
MOST_AT_ONCE = 4  # trainings of 0.7 GB, each of which keeps one core busy


def run(output: Path) -> int:
    """Trains, draws, and writes sheet and report below `output`; returns the exit code."""
    start = time.perf_counter()
    arguments = _arguments(output)
    print(f"likeness {shlex.join(arguments)}\n")
    given = build_parser().parse_args(arguments)
    code = int(given.run(given))
    print(f"demo     {time.perf_counter() - start:.0f} s in all")
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of comparison/'s commands, with the judge among the encoders."""
    parser = argparse.ArgumentParser(prog="likeness")
    cli.add_commands(parser.add_subparsers(required=True))
    parser.set_defaults(encoders=[find_judge])
    return parser


def _arguments(output: Path) -> list[str]:
    """The arguments of `likeness` that do it. Raises BaseModelError where weights are missing."""
    return [
        *("compare", PLAN, "--photos", str(PHOTOS), "--output", str(output), "--device", "cpu"),
        *("--base", str(weights.find(weights.CHECKPOINT))),
        *("--controlnet", str(weights.find(weights.CONTROLNET))),
        *("--at-once", str(min(MOST_AT_ONCE, os.cpu_count() or 1))),
    ]
