"""The command demo and its subcommands pretrain, quality and judge."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from ..trainers.errors import RecipeError
from ..trainers.files import replace_between_markers

_PRETRAIN = """\
Draws the synthetic world and trains the miniature Stable Diffusion, its OpenPose ControlNet and its
judges from scratch. It can be stopped at any time; the same command resumes. The weights in the
repository were made this way; using them does not require this command.

Stages, in order: draw, vae, text_encoder, unet, controlnet, judge, second_judge, pack. Meant for a
GPU; on a CPU it uses fewer samples and takes some hours. See the progress in
OUT/<stage>/sheets and OUT/<stage>/log.jsonl. The stage unpack splits the repository's weights into
parts, to train them further.
"""


_QUALITY = """\
Draws people that the miniature has never seen, trains it on each of them with each recipe, draws
the study's six prompts, and scores them with the judge. Writes one line per model to
OUT/quality.jsonl and skips models that are already there. The results are in docs/quality.md.

Rows: base, named (the base with the token's embedding set to the person), tiny, lora-r1, lora-r4,
lora-r8, standard, drawn (no model: drawings of the person, through the VAE). Suffix -no-prior:
without class images. lora-r8-cut-2: rank 8, resized to rank 2 after training.
"""


_JUDGE = """\
Evaluates both judges on held-out drawings and on a hundred images drawn by the miniature, against
the ground truth and human labels (demo/labels.json). The results are in demo/weights/README.md.
"""


def add_commands(commands: Any) -> None:
    """Adds these commands to the parser."""
    demo = commands.add_parser("demo", help="try everything on a miniature, without downloads")
    demo.add_argument("--output", type=Path, default=Path("output"))
    demo.set_defaults(run=_demo)
    more = demo.add_subparsers(metavar="COMMAND")
    _add_pretrain(more)
    _add_quality(more)
    _add_judge(more)


def _add_pretrain(commands: Any) -> None:
    parser = commands.add_parser(
        "pretrain", help="train the miniature itself from scratch", description=_PRETRAIN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parts = ("vae", "text_encoder", "unet", "controlnet", "judge", "second_judge")
    stages = ("all", "draw", *parts, "pack", "unpack")
    parser.add_argument("--stage", choices=stages, default="all")
    parser.add_argument("--out", type=Path, default=Path("output/pretrain"), metavar="FOLDER")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--images", type=int, help="drawings to train on (default: by device)")
    parser.add_argument("--samples", type=int, help="samples to train the stage on")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time limit")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="drawing processes"
    )
    parser.add_argument(
        "--share",
        type=numbered_share,
        default=(0, 1),
        metavar="K/N",
        help="draw only share K of N, with K from 0",
    )
    parser.set_defaults(run=_pretrain)


def _add_quality(commands: Any) -> None:
    parser = commands.add_parser(
        "quality", help="measure how well the recipes train the miniature", description=_QUALITY,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("output/quality"), metavar="FOLDER")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="default: all")
    parser.add_argument("--people", type=int, default=5, help="number of people to train")
    parser.add_argument("--seeds", type=int, default=3, help="trainings per person")
    parser.add_argument("--sweep", action="store_true", help="use the people reserved for tuning")
    parser.add_argument("--steps", type=int, nargs="+", help="step counts, one training for each")
    parser.add_argument("--draws", type=int, default=2, help="images per prompt")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change every recipe"
    )
    parser.add_argument(
        "--table", action="store_true", help="only print the table of existing results"
    )
    _add_page_and_weights(parser)
    parser.set_defaults(run=_quality)


def _add_judge(commands: Any) -> None:
    parser = commands.add_parser(
        "judge", help="measure the judges' accuracy", description=_JUDGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="only write the images to this folder"
    )
    _add_page_and_weights(parser)
    parser.set_defaults(run=_judge)


def _add_page_and_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="write the table between a page's markers"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="weights of another miniature"
    )


def _demo(given: argparse.Namespace) -> int:
    from .experiment import run

    return run(given.output)


def _pretrain(given: argparse.Namespace) -> int:
    if any(n is not None and n < 1 for n in (given.images, given.samples, given.workers)):
        raise RecipeError("--images, --samples and --workers must be at least 1.")
    import torch

    from .pretrain import Options, pretrain

    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = found if given.device == "auto" else given.device
    if device == "cuda" and found == "cpu":
        raise RecipeError("--device cuda: PyTorch finds no CUDA device.")
    options = Options(
        out=given.out.resolve(),
        device=torch.device(device),
        workers=given.workers,
        images=given.images,
        samples=given.samples,
        minutes=given.minutes,
        share=given.share,
    )
    done = pretrain(given.stage, options)
    print("done" if done else "time limit reached: run the same command again to resume")
    return 0


def _quality(given: argparse.Namespace) -> int:
    if any(n < 1 for n in (given.people, given.seeds, given.draws, *(given.steps or ()))):
        raise RecipeError("--people, --seeds, --draws and --steps must be at least 1.")
    from . import quality
    from .quality_table import table
    from .weights import FOLDER

    options = quality.Options(
        out=given.out.resolve(),
        rows=given.rows or quality.ROWS,
        people=given.people,
        seeds=given.seeds,
        first=quality.PEOPLE["sweep" if given.sweep else "quality"],
        steps=sorted(given.steps) if given.steps else None,
        settings=given.set,
        draws=given.draws,
        weights=(given.weights or FOLDER).resolve(),
    )
    if not given.table:
        quality.run(options)
    text = table(quality.asked_lines(options))
    print(text)
    if given.write:
        replace_between_markers(given.write, "sweep" if given.sweep else "quality", text)
    return 0


def _judge(given: argparse.Namespace) -> int:
    from . import judge_check
    from .weights import FOLDER

    folder = (given.weights or FOLDER).resolve()
    if given.images:
        judge_check.write_images(given.images, folder)
        return 0
    text = judge_check.report(folder)
    print(text)
    if given.write:
        replace_between_markers(given.write, "judges", text)
    return 0


def numbered_share(text: str) -> tuple[int, int]:
    """Parses ``K/N`` to (K, N). Raises argparse.ArgumentTypeError unless 0 <= K < N."""
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and int(number) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N with K from 0 to N - 1")
    return int(number), int(count)
