"""The training commands: train, inspect, resize, recipe, clean, schema, and a run's process."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from codecs import lookup
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .adapter import describe, read_metadata, recipe_of
from .adapter_metadata import final_loss
from .arguments import add_device, add_tokenizer, apply_overrides
from .cleanup import reclaimable_runs, remove_checkpoints
from .earlier_runs import find_run
from .errors import RecipeError, RunCancelled
from .events import Event
from .job import train
from .places import Places, runs_folder
from .presets import PRESETS, preset
from .recipe import Recipe, read_recipe
from .recipe_checks import check_class_images, check_continuation
from .run_folder import Result, RunFolder

_RECIPE_SUFFIXES = (".safetensors", ".json")  # of files that hold a recipe


def add_commands(commands: Any) -> None:
    """Adds the training commands to the parser."""
    _add_train(commands)
    inspect = commands.add_parser("inspect", help="describe an adapter file and print its recipe")
    inspect.add_argument("adapter", type=Path)
    inspect.add_argument("--json", action="store_true", help="print only the recipe, as JSON")
    inspect.set_defaults(run=_inspect)
    resize = commands.add_parser("resize", help="reduce a LoRA file to a lower rank")
    resize.add_argument("adapter", type=Path)
    resize.add_argument("rank", type=int)
    resize.add_argument("--to", type=Path, help="default: <adapter>-r<rank>.safetensors beside it")
    resize.set_defaults(run=_resize)
    recipe = commands.add_parser("recipe", help="print a preset's recipe, for editing")
    recipe.add_argument("preset", help=", ".join(PRESETS))
    recipe.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    recipe.set_defaults(run=_recipe)
    clean = commands.add_parser(
        "clean", help="list the training states that finished runs keep; --yes deletes them"
    )
    clean.add_argument("--output", type=Path, default=Path("output"))
    clean.add_argument("--yes", action="store_true", help="delete them")
    clean.set_defaults(run=_clean)
    schema = commands.add_parser("schema", help="print the JSON schema of recipes")
    schema.set_defaults(run=_schema)
    process = commands.add_parser("run", help="train a prepared run folder in this process")
    process.add_argument("folder", type=Path)
    follows = "save and exit when standard input closes"
    process.add_argument("--follow-parent", action="store_true", help=follows)
    since = "ignore a stop flag older than this (seconds since the epoch)"
    process.add_argument("--since", type=float, help=since)
    process.set_defaults(run=_run)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train an adapter",
        description="RECIPE is a preset's name, a recipe's JSON file, a run folder, or an adapter "
        "file that contains its recipe.",
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--base", type=Path, help="checkpoint file or diffusers folder")
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--class-images", type=Path, help="own class images (default: generated)")
    parser.add_argument(
        "--start-from", type=Path, metavar="FILE", help="LoRA file to start from (method.start)"
    )
    add_tokenizer(parser)
    parser.add_argument(
        "--output", type=Path, help="output folder (default: the run folder's, else output)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="e.g. schedule.steps=400"
    )
    parser.add_argument("--more", type=int, metavar="STEPS", help="continue a finished run")
    parser.add_argument("--processes", type=int, default=1, help="training processes, one per GPU")
    add_device(parser)
    parser.set_defaults(run=_train)


def resolve_recipe(text: str) -> tuple[Recipe, Places | None]:
    """The recipe that RECIPE names, and the places if it is a run folder. Raises RecipeError.

    A preset's name takes precedence over a folder of that name, which is then `./<name>`.
    """
    if text in PRESETS:
        return preset(text), None
    path = Path(text)
    if path.is_dir():
        folder = RunFolder(path)
        return folder.recipe(), folder.places()
    suffix = path.suffix.lower()
    is_path = len(path.parts) > 1 or text.endswith(("/", "\\")) or suffix in _RECIPE_SUFFIXES
    if is_path and not path.exists():
        raise RecipeError(f"{path} does not exist: give a run folder, a recipe or an adapter.")
    if suffix == ".safetensors":
        return recipe_of(path), None
    if suffix == ".json":
        return read_recipe(path), None
    return preset(text), None


def _places(args: argparse.Namespace, saved: Places | None) -> Places:
    base = args.base or (saved and saved.base)
    photos = args.photos or (saved and saved.photos)
    if base is None or photos is None:
        raise RecipeError("Give --base (checkpoint or diffusers folder) and --photos (folder).")
    if saved is not None and not args.class_images:
        args.class_images = saved.class_images
    inputs = {
        "base": base,
        "photos": photos,
        "class_images": args.class_images,
        "tokenizers": tuple(args.tokenizer) or (saved.tokenizers if saved else ()),
        "start": args.start_from or (saved and saved.start),
    }
    # A run folder that was moved or copied does not say where to write on this machine.
    in_place = saved is not None and saved.runs.resolve() == Path(args.recipe).resolve().parent
    if saved is not None and in_place and args.output is None:
        return saved.model_copy(update=inputs)
    return Places.for_output(args.output or Path("output"), **inputs)


def _train(args: argparse.Namespace) -> int:
    recipe, saved_places = resolve_recipe(args.recipe)
    class_images = args.class_images
    places = _places(args, saved_places)
    if args.more is not None:
        check_continuation(args.more, recipe, args.recipe)
        steps = find_run(recipe.digest(), places).completed_steps() + args.more
        continued = {"schedule": {"steps": steps}, "continues": recipe.digest()}
        recipe = recipe.without_start().changed(**continued)
    recipe = apply_overrides(recipe, args.set)
    if recipe.start is None:  # a run folder's may name one that is no longer wanted
        places = places.model_copy(update={"start": args.start_from})
    check_class_images(recipe, class_images)
    train_with_progress(recipe, places, processes=args.processes, device=args.device)
    return 0


def train_with_progress(recipe: Recipe, places: Places, *, processes: int, device: str) -> Result:
    """Trains with progress bars, handles Ctrl-C, and prints the result. Raises as `job.train`."""
    progress, interrupts = ProgressBars(), InterruptHandler()
    try:
        result = train(
            recipe,
            places,
            on_event=progress.show,
            before_start=interrupts.watch,
            processes=processes,
            device=device,
        )
    finally:
        interrupts.close()
        progress.close()
    print(format_result(result))
    return result


class InterruptHandler:
    """Ctrl-C during training: the first stops and saves the runs, the second cancels them."""

    def __init__(self) -> None:
        self._before: Any = None
        self._folders: list[RunFolder] = []
        self.asked = self.cancelled = False

    def watch(self, folder: RunFolder) -> None:
        """Handles Ctrl-C for the run in `folder`, too. Raises RunCancelled after a Ctrl-C."""
        self._folders.append(folder)  # first: a Ctrl-C sets its flag, or is seen here
        self.check(folder.path.name)
        self.begin()

    def check(self, name: str) -> None:
        """Raises RunCancelled after a Ctrl-C: `name` is not started."""
        if self.asked:
            raise RunCancelled(f"{name} was not started; run the same command to resume.")

    def begin(self) -> None:
        """Installs the signal handler; a no-op outside the main thread."""
        main = threading.current_thread() is threading.main_thread()
        if main and self._before is None:
            self._before = signal.signal(signal.SIGINT, self._first)

    def _first(self, number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, self._second)
        self.asked = True
        for folder in self._folders:
            folder.stop.touch()
        tqdm.write("Saving what is learned so far; press Ctrl-C again to cancel.", file=sys.stderr)

    def _second(self, number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.cancelled = True
        raise KeyboardInterrupt

    def close(self) -> None:
        """Restores the previous signal handler."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


def format_result(result: Result) -> str:
    """What a run wrote, and how long each stage of its last attempt took."""
    lines = ["An identical run has already finished; nothing was trained." if result.reused else ""]
    if result.stopped:
        lines.append(
            f"Stopped after {result.steps} of {result.recipe.schedule.steps} steps; run the "
            "same command again to resume."
        )
    lines += [f"adapter  {result.adapter}", f"run      {result.folder}"]
    if result.losses:
        lines.append(f"loss     {final_loss(result.losses):.4f} (mean of the last tenth)")
    lines.append(
        f"steps    {result.steps} in {result.precision}, "
        f"peak memory {result.peak_memory / 1024**3:.2f} GB"
    )
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.seconds.items())
    lines.append(f"time     {times} (last attempt)")
    return "\n".join(line for line in lines if line)


class ProgressBars:
    """Shows events as progress bars."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._name = ""

    def show(self, event: Event) -> None:
        """Shows one event."""
        data = event.data
        if event.kind == "stage" and data["total"]:
            self._advance(data["name"], data["done"], data["total"])
        elif event.kind == "step":
            self._advance("train", data["step"], data["total"])
            self._bar.set_postfix(loss=f"{data['loss']:.4f}", refresh=False)
        elif event.kind == "notice":
            tqdm.write(data["text"], file=sys.stderr)
        elif event.kind == "validation":
            tqdm.write(f"step {data['step']}: validation loss {data['loss']:.4f}", file=sys.stderr)

    def _advance(self, name: str, done: int, total: int) -> None:
        if name != self._name:
            self.close()
            self._name, self._bar = name, tqdm(total=total, desc=name, initial=max(0, done - 1))
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Ends the current bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def print_json(text: str) -> None:
    """Prints JSON; in ASCII if the output is not UTF-8, such as a redirected file on Windows."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text if lookup(encoding).name == "utf-8" else json.dumps(json.loads(text), indent=2))


def _inspect(args: argparse.Namespace) -> int:
    if args.json:
        print_json(recipe_of(args.adapter).to_json())
        return 0
    info = read_metadata(args.adapter)
    print(describe(info))
    if info.recipe is not None:
        print(f"digest {info.recipe.digest()}")
        print_json(info.recipe.to_json())
    return 0


def _resize(args: argparse.Namespace) -> int:
    from .resize import resize_file

    path = args.adapter
    to = args.to or path.with_name(f"{path.stem}-r{args.rank}.safetensors")
    kept = resize_file(path, args.rank, to)
    sizes = " -> ".join(f"{file.stat().st_size / 1e6:.1f} MB" for file in (path, to))
    print(f"{to}\n{sizes}, {kept:.0%} of the change kept (squared norm)")
    return 0


def _recipe(args: argparse.Namespace) -> int:
    print_json(apply_overrides(preset(args.preset), args.set).to_json())
    return 0


def _clean(args: argparse.Namespace) -> int:
    kept = reclaimable_runs(runs_folder(args.output))
    errors = {one.run.path: _delete_checkpoints(one.run) if args.yes else "" for one in kept}
    for one in kept:
        print(f"{one.size / 1e6:10,.1f} MB  {one.run.path.name}{errors[one.run.path]}")
    total = sum(one.size for one in kept if not errors[one.run.path]) / 1e6
    status = "deleted" if args.yes else "deletable with --yes; these runs then cannot be continued"
    print(f"{total:10,.1f} MB  {status}" if kept else "No finished run keeps a training state.")
    return 0


def _delete_checkpoints(run: RunFolder) -> str:
    """Deletes a run's checkpoints; returns why they are still there, or ""."""
    try:
        kept = not remove_checkpoints(run)
        return "  (kept: it is being trained or continued, or cannot be locked)" if kept else ""
    except OSError as error:
        return f"  (cannot be deleted: {error.strerror})"


def _schema(args: argparse.Namespace) -> int:
    print(json.dumps(Recipe.model_json_schema(), indent=2))
    return 0


def _run(args: argparse.Namespace) -> int:
    from .process import run_process

    code = run_process(args.folder, follow_parent=args.follow_parent, since=args.since)
    if os.environ.get("WORLD_SIZE", "1") == "1":
        # Everything is on the disk; torch's shutdown takes seconds, and the parent waits for it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
