"""`likeness demo`: the whole experiment on the miniature, without downloads.

Runs `likeness compare miniature` with the bundled files: draws class images, trains tiny, standard
and the three LoRAs, and draws the six prompts with the base and all five, two of them with poses
too.
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
MOST_AT_ONCE = 4  # trainings, each of which needs 0.7 GB and one core


def run(output: Path) -> int:
    """Trains, draws, and writes sheet and report to `output`; returns the exit code."""
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
    """The `likeness` arguments of the experiment. Raises BaseModelError if weights are missing."""
    return [
        *("compare", PLAN, "--photos", str(PHOTOS), "--output", str(output), "--device", "cpu"),
        *("--base", str(weights.find(weights.CHECKPOINT))),
        *("--controlnet", str(weights.find(weights.CONTROLNET))),
        *("--at-once", str(min(MOST_AT_ONCE, os.cpu_count() or 1))),
    ]
