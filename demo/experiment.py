"""`likeness demo`: the whole experiment on the miniature, without any download.

It is `likeness compare miniature` with the files of this room: class images, tiny, standard and
the three LoRAs are trained, base and all five draw the six prompts, two of them with poses too.
"""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path

from ..comparison import terminal
from ..comparison.plan_file import find_plan
from ..trainers.files import write_whole
from . import weights
from .encoder import find_judge
from .subject import FOLDER as PHOTOS

PLAN = "miniature"

_UNTRAINED = """\
The miniature's trained weights are not in this checkout, so random ones stand in for them, with
few steps: every part works, but the pictures are coloured noise and show nothing learned.
"""
_FEW_STEPS = ("schedule.steps=20", "prior.count=8", "prior.steps=5")


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
    terminal.add_commands(parser.add_subparsers(required=True))
    parser.set_defaults(encoders=[find_judge])
    return parser


def _arguments(output: Path) -> list[str]:
    """The arguments of `likeness` that do it."""
    plan, settings, folder = PLAN, (), weights.FOLDER
    if not weights.available():
        print(_UNTRAINED)
        plan, settings, folder = _small_plan(output), _FEW_STEPS, output / "models"
        _write_random(folder)
    return [
        *("compare", plan, "--photos", str(PHOTOS), "--output", str(output), "--device", "cpu"),
        *("--base", str(weights.find(weights.CHECKPOINT, folder))),
        *("--controlnet", str(weights.find(weights.CONTROLNET, folder))),
        *(part for setting in settings for part in ("--set", setting)),
    ]


def _small_plan(output: Path) -> str:
    """The plan with one quickly drawn picture a cell, as a file."""
    plan = find_plan(PLAN)
    picture = plan.picture.model_copy(update={"steps": 4})
    small = plan.model_copy(update={"draws": 1, "class_prompts": False, "picture": picture})
    path = output / f"{PLAN}-small.json"
    write_whole(path, small.to_json())
    return str(path)


def _write_random(folder: Path) -> None:
    from .random_model import write_random_miniature

    if not weights.available(folder):
        write_random_miniature(folder)
