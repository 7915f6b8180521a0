"""The same trainings by us and by other trainers: steps, whole runs, memory."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .baselines import BASELINES, BuildCommand
from .measure import Measurement, measure
from .options import common_parser, parse_options, publish, temporary_folder, working_folder
from .setting import CASES, Setting, our_command, recipe_of, setting_of
from .table import machine, trainings

OURS = "Likeness"
Results = dict[tuple[str, str, str], list[Measurement]]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = common_parser("trainings", __doc__ or "")
    parser.add_argument("--steps", type=int, default=8, help="measured steps per round")
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--by", choices=(OURS, *BASELINES), action="append", help="default: all")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), action="append")
    parser.add_argument(
        "--optimizer",
        choices=("adamw", "adamw8bit"),
        help="default: adamw on a CPU, else adamw8bit",
    )
    args = parse_options(parser, arguments)
    args.precision = args.precision or (["fp32", "bf16"] if args.device == "cpu" else ["fp16"])
    return args


def sides(args: argparse.Namespace) -> dict[str, BuildCommand]:
    """Command builders by the name of their side."""
    every: dict[str, BuildCommand] = {OURS: our_command}
    every |= {name: build_command for name, (_, build_command) in BASELINES.items()}
    return {
        name: build_command for name, build_command in every.items() if name in (args.by or every)
    }


def compare(args: argparse.Namespace, folder: Path) -> Results:
    """Runs all sides of every case in turn, so that load on the machine affects all of them."""
    results: Results = {}
    for precision in args.precision:
        for case in args.only or CASES:
            setting = setting_of(args, folder, precision, case)
            for number in range(args.rounds):
                for side, build_command in sides(args).items():
                    run = one(case, setting, folder, build_command)
                    if run is None:
                        continue
                    print(f"{precision}, {case}, {side}, {number + 1}: {short(run)}", flush=True)
                    results.setdefault((precision, case, side), []).append(run)
    return results


def one(
    case: str, setting: Setting, folder: Path, build_command: BuildCommand
) -> Measurement | None:
    """Runs one side once; None if the side does not support the training."""
    with temporary_folder(folder) as place:
        command = build_command(recipe_of(case, setting), setting, place)
        return command and measure(command, place, cpu=setting.device == "cpu")


def short(run: Measurement) -> str:
    """One line of progress output."""
    steps = ", ".join(f"{seconds:.3g}" for seconds in run.intervals)
    return run.error or f"first step after {run.first:.1f} s, then {steps} s"


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    args = parse(arguments)
    with working_folder(args) as folder:
        results = compare(args, folder)
    about = (
        f"{machine(args.device == 'cpu')}\n\n"
        f"{args.size} model of random weights, {args.resolution} x {args.resolution} pixels "
        f"(tiny: half the side), batch 1 with one class image, {args.optimizer}; "
        f"{args.steps} steps in each of {args.rounds} rounds after a warm-up."
    )
    publish(args, f"{about}\n\n{trainings(results, OURS)}")
    for name, (variable, _) in BASELINES.items():
        if not os.environ.get(variable):
            print(f"Not compared: {name}. Set {variable}.")
