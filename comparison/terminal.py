"""Commands of this room: draw, compare, plan and export."""

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
from ..trainers.errors import RecipeError, RunCancelled
from ..trainers.files import write_whole
from ..trainers.places import cache_folder
from ..trainers.recipe import check_name, explain
from ..trainers.set_aside import set_aside
from ..trainers.terminal import print_json
from .arguments import (
    add_sets,
    check_encoders,
    command_again,
    drawing_command,
    given_encoders,
    given_files,
    given_plan,
)
from .compare import Files, bound_plan, cell_files, draw_missing, photographs, teach
from .encoders import find_encoders
from .errors import ComparisonError
from .export import export, find_shared
from .matrix import Cell, Picture, Plan
from .plan_file import PlanFile, bundled_plans, find_plan
from .report import Again, Report, write_report
from .score_table import score_text
from .scores import Scores, score
from .study import AGAIN_FILE, REPORT_FILE, SCORES_FILE, Study, write_study
from .taught import Taught
from .teaching import finished_rows, one_by_one, several_at_once
from .together import draw_in_processes

_COMPARE = """\
PLAN is a JSON file, or a bundled plan's name (see `likeness plan`). Rows with a recipe are trained,
unless they are already; cells that are not drawn yet are drawn; then sheet, scores and report are
written to OUTPUT/likeness/comparisons/<name>. Ctrl-C keeps what is done: the same command goes on.
"""

_EXPORT = """\
RUN is a run folder, or an adapter file. The zip has the adapter with its recipe, and of the
comparison that shows it plan, sheet, report, scores and workflow; no place on this machine and, but
for --with-photos, no photograph. --without-prompts takes your words out of the adapter and leaves
the comparison out, which shows them; token and class word are among them.
"""


def add_commands(commands: Any) -> None:
    """Adds this room's commands to the parser."""
    _add_draw(commands)
    _add_compare(commands)
    plan = commands.add_parser("plan", help="print a bundled plan of a comparison, to edit")
    plan.add_argument("plan", nargs="?", help=", ".join(bundled_plans()))
    plan.add_argument("--schema", action="store_true", help="print the JSON schema of plans")
    plan.set_defaults(run=_plan)
    _add_export(commands)


def _add_draw(commands: Any) -> None:
    draw = commands.add_parser("draw", help="draw a picture for each prompt")
    draw.add_argument("prompt", nargs="+", help="each gives a picture, all from the same noise")
    draw.add_argument("--base", type=Path, required=True, help="checkpoint or diffusers folder")
    draw.add_argument("--adapter", type=Path, help="a LoRA, or a full fine-tune")
    draw.add_argument("--strength", type=float, default=1.0, help="of the adapter; 0: the base")
    add_tokenizer(draw)
    draw.add_argument("--negative", default="", help="negative prompt (default: none)")
    draw.add_argument("--width", type=int, default=512, help="pixels (default: %(default)s)")
    draw.add_argument("--height", type=int, default=512, help="pixels (default: %(default)s)")
    draw.add_argument("--steps", type=int, default=35, help="of sampling (default: %(default)s)")
    draw.add_argument("--guidance", type=float, default=7.5, help="scale (default: %(default)s)")
    draw.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    draw.add_argument(
        "--clip-skip", type=int, help="2: the text encoder's last layer but one "
        "(default: as the adapter was trained)",
    )  # fmt: skip
    add_device(draw)
    draw.add_argument("--name", default="picture", help="files are <output>/<name>-0.png, …")
    draw.add_argument("--output", type=Path, default=Path("output"), help="default: output")
    draw.set_defaults(run=_draw)


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare", help="train, draw and score the rows of a plan", description=_COMPARE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("plan", metavar="PLAN")
    parser.add_argument("--base", type=Path, required=True, help="checkpoint or diffusers folder")
    add_sets(parser)
    parser.add_argument("--photos", type=Path, help="folder of the subject's photographs")
    parser.add_argument("--class-images", type=Path, help="your own class images (default: drawn)")
    add_tokenizer(parser)
    parser.add_argument("--controlnet", type=Path, help="OpenPose ControlNet of rows with poses")
    parser.add_argument("--without-pose", action="store_true", help="leave out rows with poses")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="ROW=FILE",
        help="take this file for a row instead of training it; a new name adds a row",
    )  # fmt: skip
    parser.add_argument(
        "--adapters", type=Path, action="append", default=[], metavar="FOLDER",
        help="where the adapters are that the plan names (default: OUTPUT/loras, /checkpoints)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of every row's recipe"
    )
    parser.add_argument("--output", type=Path, default=Path("output"), help="default: output")
    together = parser.add_mutually_exclusive_group()
    together.add_argument("--processes", type=int, default=1, help="that train one row together")
    together.add_argument(
        "--at-once", type=int, default=1, metavar="N",
        help="rows trained and pictures drawn at the same time, on a CPU: for small models",
    )  # fmt: skip
    parser.add_argument("--cells", type=Path, help=argparse.SUPPRESS)
    add_device(parser)
    _add_encoders(parser)
    parser.set_defaults(run=_compare)


def _add_encoders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clip", type=Path, help="CLIP: a transformers folder, or an image file")
    parser.add_argument("--clip-text", type=Path, help="its text encoder, where that lies apart")
    parser.add_argument("--dino", type=Path, help="DINOv2: a transformers folder")
    parser.add_argument("--no-scores", action="store_true", help="leave the scores out")


def _draw(given: argparse.Namespace) -> int:
    picture = _given_picture(given)
    from PIL import Image

    set_aside()
    from .sample import draw, dtype_on, load_with_adapter

    skip, device = _clip_skip(given), _device(given.device)
    model = load_with_adapter(
        given.base,
        given.adapter,
        tokenizers=given.tokenizer,
        strength=given.strength,
        device=device,
        dtype=dtype_on(device),
    )
    pictures = draw(
        model, given.prompt, negative=given.negative, seed=given.seed, clip_skip=skip,
        **picture.model_dump(),
    )  # fmt: skip
    given.output.mkdir(parents=True, exist_ok=True)
    for index, pixels in enumerate(pictures):
        path = given.output / f"{given.name}-{index}.png"
        Image.fromarray(pixels).save(path)
        print(path)
    return 0


def _clip_skip(given: argparse.Namespace) -> int:
    """Of `likeness draw`: as asked, else as in the adapter's recipe. Raises RecipeError."""
    if given.clip_skip is not None:
        if not 1 <= given.clip_skip <= 12:
            raise RecipeError("--clip-skip is from 1 to 12.")
        return int(given.clip_skip)
    return 1 if given.adapter is None else clip_skip_of(given.adapter)


def _given_picture(given: argparse.Namespace) -> Picture:
    """Size, steps and guidance of `likeness draw`. Raises RecipeError for any wrong value."""
    try:
        check_name(given.name)
    except ValueError as error:
        raise RecipeError(f"--name {given.name!r}: {error}") from None
    if not 0 <= given.seed < 2**64:
        raise RecipeError("--seed is from 0 to 2**64 - 1.")
    try:
        return Picture(**{name: getattr(given, name) for name in Picture.model_fields})
    except ValidationError as error:
        raise RecipeError(explain(error, "command")) from None


def _add_export(commands: Any) -> None:
    export = commands.add_parser(
        "export", help="write a zip to share: adapter, recipe, comparison", description=_EXPORT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    export.add_argument("share", metavar="RUN", type=Path)
    export.add_argument("--comparison", type=Path, metavar="FOLDER", help="default: the newest")
    export.add_argument("--workflow", type=Path, help="a saved graph (default: the sheet's)")
    export.add_argument("--with-photos", action="store_true", help="the training photographs too")
    export.add_argument("--without-prompts", action="store_true", help="none of your own words")
    export.add_argument("--to", type=Path, metavar="FILE", help="default: exports/<adapter>.zip")
    export.set_defaults(run=_export)


def _plan(given: argparse.Namespace) -> int:
    if given.schema:
        print(json.dumps(PlanFile.model_json_schema(), indent=2))
        return 0
    if given.plan is None:
        raise ComparisonError(f"Which plan? There are {', '.join(bundled_plans())}.")
    print_json(find_plan(given.plan).to_json())
    return 0


def _export(given: argparse.Namespace) -> int:
    shared = find_shared(given.share, given.comparison)
    target = given.to or Path("exports") / f"{shared.adapter.stem}.zip"
    names = export(
        target,
        shared,
        workflow=given.workflow,
        photographs=given.with_photos,
        prompts=not given.without_prompts,
    )
    print("\n".join(f"- {name}" for name in names))
    if given.with_photos:
        print("The photographs are as you took them, with the place and time in their EXIF data.")
    if given.without_prompts:
        print("Without its prompts the adapter cannot be trained again from itself.")
    elif shared.comparison is None:
        print("No comparison shows this adapter; name one with --comparison FOLDER.")
    print(f"zip      {target}")
    return 0


# compare


def _compare(given: argparse.Namespace) -> int:
    plan, files = given_plan(given), given_files(given)
    if given.cells:
        return _draw_part(given, plan, files)
    _check_at_once(given)
    check_encoders(given)
    taught = teach(plan, files, one_by_one(given) if given.at_once == 1 else several_at_once(given))
    drawn = bound_plan(plan, taught, files)
    _draw_cells(given, drawn, taught, files)
    study, _ = write_study(
        files.output, plan.name, drawn, cell_files(drawn, files.output), "png", {}
    )
    print(f"pictures {study.folder}\nsheet    {study.sheet}")
    scores = None if given.no_scores else _score(given, study, files)
    _write_report(given, plan, study, taught, scores)
    return 0


def _check_at_once(given: argparse.Namespace) -> None:
    if given.at_once < 1:
        raise ComparisonError("--at-once is at least 1.")
    if given.at_once > 1 and _device(given.device) != "cpu":
        raise ComparisonError("--at-once is for CPUs: with a GPU give --device cpu, or leave it.")


def _draw_part(given: argparse.Namespace, plan: PlanFile, files: Files) -> int:
    """What `draw_in_processes` starts: some of the cells, when all rows are trained."""
    from ..trainers.stop import when_parent_ends  # imports torch, which only this needs so early

    when_parent_ends(lambda: os._exit(RunCancelled.exit_code))
    taught = teach(plan, files, finished_rows)
    drawn = bound_plan(plan, taught, files)
    only = frozenset(json.loads(given.cells.read_bytes()))
    draw_missing(drawn, taught, files, on_cell=lambda cell: None, only=only)
    return 0


def _draw_cells(
    given: argparse.Namespace, plan: Plan, taught: Sequence[Taught], files: Files
) -> None:
    """Draws what is missing under a bar of cells done, left and time left."""
    kept = cell_files(plan, files.output)
    missing = [number for number, path in enumerate(kept) if not path.is_file()]
    done = len(kept) - len(missing)
    if done == len(kept):
        print(f"cells    all {done} are there; nothing was drawn")
        return
    with tqdm(total=len(kept), initial=done, unit="cell", desc="draw") as bar:

        def show(cell: Cell) -> None:
            left = bar.total - bar.n - 1
            bar.set_postfix_str(f"{left} left, {plan.rows()[cell.row]} {cell.key}", refresh=False)
            bar.update()

        try:
            if given.at_once == 1:
                draw_missing(plan, taught, files, on_cell=show, device=_device(given.device))
            else:
                draw_in_processes(drawing_command(given), missing, given.at_once, kept, bar)
        except KeyboardInterrupt:
            bar.close()
            there = sum(path.is_file() for path in kept)
            print(f"\n{there} of {len(kept)} cells are kept; the same command draws the others.")
            raise


def _device(asked: str) -> str:
    import torch

    return "cuda" if asked == "auto" and torch.cuda.is_available() else "cpu"


def _score(given: argparse.Namespace, study: Study, files: Files) -> Scores:
    """The scores, printed and written beside the sheet."""
    cache = cache_folder(files.output)
    device = _device(given.device)
    found, missing = find_encoders(
        given_encoders(given), given.encoders, lambda size: device, study.plan.picture
    )
    scores = score(
        study.plan,
        study.pictures,
        photographs(files.photos),
        found,
        notes=missing,
        cache=cache,
        on_encoder=lambda name: print(f"score    {name}"),
    )
    write_whole(study.folder / SCORES_FILE, scores.to_json(study.plan))
    print(score_text(study.plan, scores))
    return scores


def _write_report(
    given: argparse.Namespace,
    plan: PlanFile,
    study: Study,
    taught: Sequence[Taught],
    scores: Scores | None,
) -> None:
    again = [
        Again("From the terminal", command_again(given)),
        Again("Its plan", plan.to_json(), AGAIN_FILE),
    ]
    write_whole(study.folder / AGAIN_FILE, plan.to_json())
    path = study.folder / REPORT_FILE
    write_report(
        path, Report(plan.name, study.plan, study.pictures, taught, scores, again, __version__)
    )
    print(f"report   {path}")
