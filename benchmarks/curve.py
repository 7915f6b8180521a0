"""Plots the losses of our training and of diffusers' script under equal settings."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from likeness.comparison.charts import Series, loss_lines
from likeness.comparison.html import Html, tag
from likeness.trainers.files import write_atomic

from .baselines import DIFFUSERS, diffusers_script
from .measure import Command, Measurement, measure
from .options import PAGE, common_parser, parse_options, publish, temporary_folder, working_folder
from .setting import IMAGES, Setting, our_command, recipe_of, setting_of
from .table import machine, markdown, not_measured

PLOT = PAGE.parent / "images" / "losses.svg"
OURS, SCRIPT = "Likeness", "diffusers' script"
COLOURS = ("#2563a8", "#c2571a")
_STYLE = """
text { font: 11px sans-serif; fill: #555 }
.y { text-anchor: end; dominant-baseline: middle } .x { text-anchor: middle }
line { stroke: #ddd } .series { fill: none; stroke-width: 1.8; stroke-linejoin: round }
"""

Losses = Mapping[str, Sequence[Sequence[float]]]  # side -> for each seed one value per step


def run(
    side: str, case: str, seed: int, rate: float, setting: Setting, folder: Path
) -> Measurement:
    """Runs one training with the given seed and learning rate."""
    recipe = recipe_of(case, setting).changed(
        seed=seed, optimizer={"learning_rate": rate}, schedule={"steps": setting.steps}
    )
    with temporary_folder(folder) as place:
        command: Command | None = our_command(recipe, setting, place)
        if side == SCRIPT:
            command = diffusers_script(recipe, setting, place)
        if command is None:
            return Measurement(error=f"{DIFFUSERS} is not set")
        return measure(command, place, cpu=setting.device == "cpu")


def means(losses: Sequence[Sequence[float]]) -> list[float]:
    """The mean over seeds at each step, up to the shortest run."""
    return [statistics.fmean(values) for values in zip(*losses, strict=False)]


def plot(losses: Losses) -> Html:
    """An SVG with a line per side: the mean over seeds, smoothed over steps."""
    series = [Series(side, means(runs)) for side, runs in losses.items()]
    rules = "".join(
        f".c{number} {{ stroke: {colour} }} .k{number} {{ fill: {colour} }}"
        for number, colour in enumerate(COLOURS)
    )
    names = [
        tag("text", side, x=60 + 160 * number, y=278, class_=f"k{number}")
        for number, side in enumerate(losses)
    ]
    lines = loss_lines(series, x="0", y="0", width="720", height="260")
    background = tag("rect", width=720, height=290, fill="#fff")
    size = {"viewBox": "0 0 720 290", "xmlns": "http://www.w3.org/2000/svg"}
    return tag("svg", tag("style", Html(_STYLE + rules)), background, lines, names, **size)


def rows(losses: Losses) -> list[list[str]]:
    """Mean losses of the first and the last quarter of the steps."""
    table = []
    for side, runs in losses.items():
        quarter = max(1, min(map(len, runs)) // 4)
        ends = ([run[:quarter] for run in runs], [run[-quarter:] for run in runs])
        table.append([side, str(len(runs)), *(_mean_and_error(end) for end in ends)])
    return table


def _mean_and_error(runs: Sequence[Sequence[float]]) -> str:
    """The mean of the runs' means, and its standard error."""
    values = [statistics.fmean(run) for run in runs]
    if len(values) < 2:
        return f"{values[0]:.4f}"
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):.4f} ± {error:.4f}"


def main(arguments: list[str]) -> None:
    """Trains, prints the table, and writes plot and table with --write."""
    parser = common_parser("curve", __doc__ or "")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--case", choices=("lora", "dreambooth"), default="lora")
    parser.add_argument("--rate", type=float, default=1e-3, help="small models need a high rate")
    parser.set_defaults(size="tiny")
    args = parse_options(parser, arguments)
    losses: dict[str, list[Sequence[float]]] = {}
    with working_folder(args) as folder:
        setting = setting_of(args, folder, "fp32" if args.device == "cpu" else "fp16")
        for seed in range(args.seeds):
            for side in (OURS, SCRIPT):
                one = run(side, args.case, seed, args.rate, setting, folder)
                print(
                    f"{side}, seed {seed}: {one.error or f'{len(one.losses)} losses'}", flush=True
                )
                if one.error or not one.losses:
                    raise SystemExit(f"{side}: {not_measured([one])}")
                losses.setdefault(side, []).append(one.losses)
    if args.write:
        write_atomic(PLOT, plot(losses))
    head = ("by", "seeds", "loss, first quarter: mean ± standard error", "last quarter")
    publish(args, f"{about(args, setting)}\n\n{markdown(head, rows(losses))}\n\n{_IMAGE}")


_IMAGE = f"![Losses of both sides over the steps](images/{PLOT.name})"


def about(args: argparse.Namespace, setting: Setting) -> str:
    """Describes the training and the machine."""
    return (
        f"{machine(args.device == 'cpu')}\n\n{args.case}, {args.size} model of random weights, "
        f"{args.resolution} x {args.resolution} pixels, {setting.precision}, "
        f"{setting.optimizer}, rate {args.rate:g}, {IMAGES} photographs and as many class "
        "images. Each side draws its own noise and initialises its own LoRA."
    )
