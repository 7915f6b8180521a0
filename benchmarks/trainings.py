"""Trainings beside the same ones of other trainers: steps, whole runs, memory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .measure import Measured, measure
from .options import common, parsed, publish, room, working_folder
from .peers import PEERS, Ask
from .setting import CASES, Setting, our_command, recipe_of, setting_of
from .table import machine, trainings

OURS = "Likeness"
Results = dict[tuple[str, str, str], list[Measured]]


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = common("trainings", __doc__ or "")
    parser.add_argument("--steps", type=int, default=8, help="steps counted in each round")
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--by", choices=(OURS, *PEERS), action="append", help="default: all")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), action="append")
    parser.add_argument(
        "--optimizer",
        choices=("adamw", "adamw8bit"),
        help="default: adamw on a CPU, else adamw8bit",
    )
    given = parsed(parser, arguments)
    given.precision = given.precision or (["fp32", "bf16"] if given.device == "cpu" else ["fp16"])
    return given


def sides(given: argparse.Namespace) -> dict[str, Ask]:
    """Who trains, by name."""
    every: dict[str, Ask] = {OURS: our_command}
    every |= {name: ask for name, (_, ask) in PEERS.items()}
    return {name: ask for name, ask in every.items() if name in (given.by or every)}


def compare(given: argparse.Namespace, folder: Path) -> Results:
    """All sides of every case, in turn, so that a busy minute of the machine hits all."""
    results: Results = {}
    for precision in given.precision:
        for case in given.only or CASES:
            setting = setting_of(given, folder, precision, case)
            for number in range(given.rounds):
                for side, ask in sides(given).items():
                    run = one(case, setting, folder, ask)
                    if run is None:
                        continue
                    print(f"{precision}, {case}, {side}, {number + 1}: {short(run)}", flush=True)
                    results.setdefault((precision, case, side), []).append(run)
    return results


def one(case: str, setting: Setting, folder: Path, ask: Ask) -> Measured | None:
    """One run of one side; None where the side has no such training."""
    with room(folder) as place:
        command = ask(recipe_of(case, setting), setting, place)
        return command and measure(command, place, cpu=setting.device == "cpu")


def short(run: Measured) -> str:
    """A line for whoever waits."""
    steps = ", ".join(f"{seconds:.3g}" for seconds in run.intervals)
    return run.error or f"first step after {run.first:.1f} s, then {steps} s"


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it if asked."""
    given = parse(arguments)
    with working_folder(given) as folder:
        results = compare(given, folder)
    about = (
        f"{machine(given.device == 'cpu')}\n\n"
        f"{given.size} model of random weights, {given.resolution} x {given.resolution} pixels "
        f"(tiny: half the side), batch 1 with one class image, {given.optimizer}; "
        f"{given.steps} steps in each of {given.rounds} rounds after a warm-up."
    )
    publish(given, f"{about}\n\n{trainings(results, OURS)}")
    for name, (variable, _) in PEERS.items():
        if not os.environ.get(variable):
            print(f"Not compared: {name}. Set {variable}.")
