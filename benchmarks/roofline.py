"""FLOP/s of a training step, against those of a plain matrix product."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from .measure import Measurement, measure
from .options import common_parser, parse_options, publish, temporary_folder, working_folder
from .setting import Setting, our_command, recipe_of, setting_of
from .table import intervals, machine, markdown, median_step, not_measured

SIDE = {"cpu": 2048, "cuda": 8192}  # of the matrices
REPEATS = 9
_HEAD = (
    *("training", "samples per step", "TFLOP per step", "step, s", "TFLOP/s"),
    *("a matrix product's TFLOP/s", "share of it"),
)


def product_rate(precision: str, device: str) -> float:
    """FLOP/s of a product of two square matrices: the median after a warm-up."""
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    side = SIDE[device]
    one, other = (torch.randn(side, side).to(device, dtypes[precision]) for _ in range(2))
    seconds = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        torch.mm(one, other)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(seconds[2:])


def measure_step(case: str, batch: int, setting: Setting, folder: Path) -> list[Measurement]:
    """Two runs: one whose operations are counted, and one that is timed."""
    recipe = recipe_of(case, setting).changed(schedule={"batch_size": batch})
    counted = recipe.changed(schedule={"steps": 3}, compute={"graphs": False})
    runs = []
    for chosen, options in ((counted, ["--count-flops"]), (recipe, [])):
        with temporary_folder(folder) as place:
            command = our_command(chosen, setting, place, *options, cache=folder / "cache")
            runs.append(measure(command, place, cpu=setting.device == "cpu"))
    return runs


def row(name: str, batch: int, runs: list[Measurement], product: float) -> list[str]:
    """A row of the table; each photograph in a step comes with a class image."""
    counted, timed = runs
    if counted.error or timed.error or not counted.flops or len(intervals([timed])) < 2:
        return [name, str(2 * batch), not_measured(runs)]
    step = median_step([timed])
    rate = counted.flops / step
    return [
        name,
        str(2 * batch),
        f"{counted.flops / 1e12:.3g}",
        f"{step:.3g}",
        f"{rate / 1e12:.3g}",
        f"{product / 1e12:.3g}",
        f"{100 * rate / product:.0f} %",
    ]


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    parser = common_parser("roofline", __doc__ or "")
    parser.add_argument("--steps", type=int, default=8, help="measured steps")
    parser.add_argument("--only", choices=("lora", "dreambooth"), action="append")
    parser.add_argument("--batch", type=int, action="append", help="default: 1; on CUDA 1 and 4")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"), action="append")
    args = with_defaults(parse_options(parser, arguments))
    rows = []
    with working_folder(args) as folder:
        for precision in args.precision:
            product = product_rate(precision, args.device)
            for case in args.only or ("lora",):
                setting = setting_of(args, folder, precision, case)
                for batch in args.batch:
                    runs = measure_step(case, batch, setting, folder)
                    rows.append(row(f"{case}, {precision}", batch, runs, product))
                    print(" | ".join(rows[-1]), flush=True)
    publish(args, f"{about(args)}\n\n{markdown(_HEAD, rows)}")


def with_defaults(args: Any) -> Any:
    """Fills in the device's default precisions and batch sizes."""
    cpu = args.device == "cpu"
    args.precision = args.precision or (["fp32", "bf16"] if cpu else ["fp16", "bf16"])
    args.batch = args.batch or ([1] if cpu else [1, 4])
    return args


def about(args: argparse.Namespace) -> str:
    """Describes the measurement and the machine."""
    side = SIDE[args.device]
    return (
        f"{machine(args.device == 'cpu')}\n\n{args.size} model of random weights, "
        f"{args.resolution} x {args.resolution} pixels, {args.steps} steps after a warm-up; "
        f"products of {side:,} x {side:,} matrices with the same threads. Matrix products, "
        "convolutions and attention are counted, as computed."
    )
