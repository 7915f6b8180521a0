"""The commands draw, compare, plan and export."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from .. import __version__
from ..trainers.adapter import clip_skip_of
from ..trainers.arguments import add_device, add_tokenizer
from ..trainers.cli import print_json
from ..trainers.errors import RecipeError, RunCancelled
from ..trainers.files import write_atomic
from ..trainers.optional_packages import hide_packages
from ..trainers.places import cache_folder
from ..trainers.recipe import check_name, format_validation_error
from .arguments import (
    add_set_options,
    check_at_once,
    check_encoders,
    drawing_command,
    encoder_files_from_args,
    files_from_args,
    plan_from_args,
    rerun_command,
    resolve_device,
)
from .compare import (
    ComparisonFiles,
    cell_files,
    draw_missing,
    resolve_plan,
    train_missing,
)
from .encoders import find_encoders
from .errors import ComparisonError
from .export import export, find_export_source
from .matrix import Cell, ImageSettings, Plan
from .parallel import draw_in_processes
from .plan_file import PlanFile, bundled_plans, find_plan
from .references import trained_photographs
from .report import Report, Reproduction, write_report
from .row_adapters import RowAdapter
from .row_training import reuse_finished_runs, train_in_parallel, train_sequentially
from .score_table import format_scores
from .scores import Scores, score
from .study import REPORT_FILE, RERUN_PLAN_FILE, SCORES_FILE, Study, write_study
from .user_files import next_number

_COMPARE = """\
PLAN is a JSON file or the name of a bundled plan (see `likeness plan`). Trains the rows that have a
recipe, generates the cells, writes sheet, scores and report to OUTPUT/likeness/comparisons/<name>.
Finished training runs and cells are reused: after Ctrl-C, the same command resumes.
"""

_EXPORT = """\
RUN is a run folder or an adapter file. The zip holds the adapter with its recipe and, of the
comparison that shows it, plan, sheet, report, scores and workflow. It holds no local paths and,
without --with-photos, no photographs. --without-prompts removes your prompts, token and class word
from the adapter, and omits the comparison, which shows them.
"""


def add_commands(commands: Any) -> None:
    """Adds these commands to the parser."""
    _add_draw(commands)
    _add_compare(commands)
    plan = commands.add_parser("plan", help="print a bundled plan of a comparison, to edit")
    plan.add_argument("plan", nargs="?", help=", ".join(bundled_plans()))
    plan.add_argument("--schema", action="store_true", help="print the JSON schema of plans")
    plan.set_defaults(run=_plan)
    _add_export(commands)


def _add_draw(commands: Any) -> None:
    draw = commands.add_parser("draw", help="generate one image per prompt")
    draw.add_argument("prompt", nargs="+", help="one image each, all from the same noise")
    draw.add_argument("--base", type=Path, required=True, help="checkpoint or diffusers folder")
    draw.add_argument("--adapter", type=Path, help="a LoRA or a full fine-tune")
    draw.add_argument("--strength", type=float, default=1.0, help="of the adapter; 0 is the base")
    add_tokenizer(draw)
    draw.add_argument("--negative", default="", help="negative prompt (default: none)")
    draw.add_argument("--width", type=int, default=512, help="pixels (default: %(default)s)")
    draw.add_argument("--height", type=int, default=512, help="pixels (default: %(default)s)")
    draw.add_argument("--steps", type=int, default=35, help="sampling steps (default: %(default)s)")
    draw.add_argument("--guidance", type=float, default=7.5, help="CFG scale (default: 7.5)")
    draw.add_argument("--seed", type=int, default=0, help="noise seed (default: %(default)s)")
    draw.add_argument(
        "--clip-skip", type=int, help="2 uses the text encoder's second-to-last layer "
        "(default: as the adapter was trained)",
    )  # fmt: skip
    add_device(draw)
    draw.add_argument("--name", default="image", help="files are <output>/<name>-0.png, …")
    draw.add_argument("--output", type=Path, default=Path("output"), help="default: output")
    draw.set_defaults(run=_draw)


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare", help="train a plan's rows, generate images and score them", description=_COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("plan", metavar="PLAN")
    parser.add_argument("--base", type=Path, required=True, help="checkpoint or diffusers folder")
    add_set_options(parser)
    parser.add_argument("--photos", type=Path, help="folder of the subject's photographs")
    parser.add_argument("--class-images", type=Path, help="own class images (default: generated)")
    add_tokenizer(parser)
    parser.add_argument("--controlnet", type=Path, help="OpenPose ControlNet for rows with poses")
    parser.add_argument("--without-pose", action="store_true", help="omit rows with poses")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="ROW=FILE",
        help="use this file for a row instead of training it; a new name adds a row",
    )  # fmt: skip
    parser.add_argument(
        "--adapters", type=Path, action="append", default=[], metavar="FOLDER",
        help="folder with the adapters that the plan names (default: OUTPUT/loras, /checkpoints)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="change every recipe"
    )
    parser.add_argument("--output", type=Path, default=Path("output"), help="default: output")
    together = parser.add_mutually_exclusive_group()
    together.add_argument("--processes", type=int, default=1, help="processes that train each row")
    together.add_argument(
        "--at-once", type=int, default=1, metavar="N",
        help="rows to train and images to generate in parallel, on a CPU: for small models",
    )  # fmt: skip
    parser.add_argument("--cells", type=Path, help=argparse.SUPPRESS)
    add_device(parser)
    _add_encoders(parser)
    parser.set_defaults(run=_compare)


def _add_encoders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clip", type=Path, help="CLIP: transformers folder or image encoder file")
    parser.add_argument("--clip-text", type=Path, help="its text encoder, if in a separate file")
    parser.add_argument("--dino", type=Path, help="DINOv2: transformers folder")
    parser.add_argument("--no-scores", action="store_true", help="skip the scores")


def _draw(args: argparse.Namespace) -> int:
    settings = _settings_from_args(args)
    from PIL import Image

    hide_packages()
    from .sample import draw, inference_dtype, load_with_adapter

    skip, device = _clip_skip(args), resolve_device(args.device)
    model = load_with_adapter(
        args.base, args.adapter, tokenizers=args.tokenizer, strength=args.strength, device=device,
        dtype=inference_dtype(device),
    )  # fmt: skip
    images = draw(
        model, args.prompt, negative=args.negative, seed=args.seed, clip_skip=skip,
        **settings.model_dump(),
    )  # fmt: skip
    args.output.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(images, next_number(args.output, args.name)):
        path = args.output / f"{args.name}-{index}.png"
        Image.fromarray(pixels).save(path)
        print(path)
    return 0


def _clip_skip(args: argparse.Namespace) -> int:
    """CLIP skip to draw with, by default the adapter's (at strength 0: 1). Raises RecipeError."""
    if args.clip_skip is not None:
        if not 1 <= args.clip_skip <= 12:
            raise RecipeError("--clip-skip must be between 1 and 12.")
        return int(args.clip_skip)
    return clip_skip_of(args.adapter) if args.adapter and args.strength else 1


def _settings_from_args(args: argparse.Namespace) -> ImageSettings:
    """Size, steps and guidance of `likeness draw`. Raises RecipeError for an invalid value."""
    try:
        check_name(args.name)
    except ValueError as error:
        raise RecipeError(f"--name {args.name!r}: {error}") from None
    if not 0 <= args.seed < 2**64:
        raise RecipeError("--seed must be between 0 and 2**64 - 1.")
    try:
        return ImageSettings(**{name: getattr(args, name) for name in ImageSettings.model_fields})
    except ValidationError as error:
        raise RecipeError(format_validation_error(error, "command")) from None


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export", help="write a zip to share: adapter, recipe, comparison", description=_EXPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    export.add_argument("share", metavar="RUN", type=Path)
    export.add_argument("--comparison", type=Path, metavar="FOLDER", help="default: the newest")
    export.add_argument("--workflow", type=Path, help="a saved graph (default: the sheet's)")
    export.add_argument("--with-photos", action="store_true", help="add the training photographs")
    export.add_argument(
        "--without-prompts", action="store_true",
        help="remove prompts, token and class word; omit the comparison")  # fmt: skip
    export.add_argument("--to", type=Path, metavar="FILE", help="default: exports/<adapter>.zip")
    export.set_defaults(run=_export)


def _plan(args: argparse.Namespace) -> int:
    if args.schema:
        print(json.dumps(PlanFile.model_json_schema(), indent=2))
        return 0
    if args.plan is None:
        raise ComparisonError(f"Name a plan: one of {', '.join(bundled_plans())}.")
    print_json(find_plan(args.plan).to_json())
    return 0


def _export(args: argparse.Namespace) -> int:
    source = find_export_source(args.share, args.comparison)
    target = args.to or Path("exports") / f"{source.adapter.stem}.zip"
    names = export(
        target,
        source,
        workflow=args.workflow,
        photographs=args.with_photos,
        prompts=not args.without_prompts,
    )
    print("\n".join(f"- {name}" for name in names))
    if args.with_photos:
        print("The photographs are unmodified: their EXIF data may tell place and time.")
    if args.without_prompts:
        print("Without its prompts, the adapter no longer holds what is needed to retrain it.")
    elif source.comparison is None:
        print("No comparison with this adapter was found; give one with --comparison FOLDER.")
    print(f"zip      {target}")
    return 0


# compare


def _compare(args: argparse.Namespace) -> int:
    plan, files = plan_from_args(args), files_from_args(args)
    if args.cells:
        return _draw_part(args, plan, files)
    check_at_once(args)
    check_encoders(args)
    row_adapters = train_missing(
        plan, files, train_sequentially(args) if args.at_once == 1 else train_in_parallel(args)
    )
    drawn = resolve_plan(plan, row_adapters, files)
    _draw_cells(args, plan, drawn, row_adapters, files)
    study, _ = write_study(
        files.output, plan.name, drawn, cell_files(drawn, files.output), "png", {}
    )
    print(f"images   {study.folder}\nsheet    {study.sheet}")
    scores = None if args.no_scores else _score(args, plan, study, files)
    _write_report(args, plan, study, row_adapters, scores)
    return 0


def _draw_part(args: argparse.Namespace, plan: PlanFile, files: ComparisonFiles) -> int:
    """Draws some of the cells, in a process started by `draw_in_processes`."""
    from ..trainers.stop import on_parent_exit  # imports torch, so not at module level

    on_parent_exit(lambda: os._exit(RunCancelled.exit_code))
    row_adapters = train_missing(plan, files, reuse_finished_runs)
    drawn = resolve_plan(plan, row_adapters, files)
    only = frozenset(json.loads(args.cells.read_bytes()))
    draw_missing(drawn, row_adapters, files, on_cell=lambda cell: None, only=only)
    return 0


def _draw_cells(
    args: argparse.Namespace, plan: PlanFile, drawn: Plan, row_adapters: Sequence[RowAdapter],
    files: ComparisonFiles,
) -> None:  # fmt: skip
    """Draws missing cells with a progress bar."""
    kept = cell_files(drawn, files.output)
    missing = [number for number, path in enumerate(kept) if not path.is_file()]
    done = len(kept) - len(missing)
    if done == len(kept):
        print(f"cells    all {done} exist; nothing to generate")
        return
    with tqdm(total=len(kept), initial=done, unit="cell", desc="generate") as bar:

        def show(cell: Cell) -> None:
            left = bar.total - bar.n - 1
            bar.set_postfix_str(f"{left} left, {drawn.rows()[cell.row]} {cell.key}", refresh=False)
            bar.update()

        try:
            if args.at_once == 1:
                device = resolve_device(args.device)
                draw_missing(drawn, row_adapters, files, on_cell=show, device=device)
            else:
                draw_in_processes(plan, drawing_command(args), missing, args.at_once, kept, bar)
        except KeyboardInterrupt:
            bar.close()
            there = sum(path.is_file() for path in kept)
            print(f"\n{there} of {len(kept)} cells are saved; the same command generates the rest.")
            raise


def _score(
    args: argparse.Namespace, plan: PlanFile, study: Study, files: ComparisonFiles
) -> Scores:
    """Computes the scores, prints them and writes them beside the sheet."""
    cache = cache_folder(files.output)
    device = resolve_device(args.device)
    found, missing = find_encoders(
        encoder_files_from_args(args), args.encoders, lambda size: device, study.plan.image
    )
    scores = score(
        study.plan,
        study.images,
        trained_photographs(plan, files.photos),
        found,
        notes=missing,
        cache=cache,
        on_encoder=lambda name: print(f"score    {name}"),
    )
    write_atomic(study.folder / SCORES_FILE, scores.to_json(study.plan))
    print(format_scores(study.plan, scores))
    return scores


def _write_report(
    args: argparse.Namespace,
    plan: PlanFile,
    study: Study,
    row_adapters: Sequence[RowAdapter],
    scores: Scores | None,
) -> None:
    reproduction = [
        Reproduction("From the terminal", rerun_command(args)),
        Reproduction("Its plan", plan.to_json(), RERUN_PLAN_FILE),
    ]
    write_atomic(study.folder / RERUN_PLAN_FILE, plan.to_json())
    report = Report(
        plan.name, study.plan, study.images, row_adapters, scores, reproduction, __version__
    )
    path = study.folder / REPORT_FILE
    write_report(path, report)
    print(f"report   {path}")
