"""Shared by both train nodes: inputs, outputs, and running a recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..trainers.adapter_metadata import final_loss
from ..trainers.base_file import identify
from ..trainers.binding import named
from ..trainers.earlier_runs import reused_message
from ..trainers.errors import LikenessError
from ..trainers.job import train
from ..trainers.packages import require_dependencies
from ..trainers.places import Places
from ..trainers.recipe import Recipe, recipe_from_data
from ..trainers.run_folder import Result, RunFolder
from . import host, miniature
from .field_names import errors_name_widgets, name_widgets
from .host import io
from .paths import file_fingerprint
from .recipe_builder import AUTO, build_recipe, check_packages
from .run_reporter import RunReporter, on_read
from .runs import resume_requests
from .sockets import LossMapType, OptionsType, PriorType, SubjectType
from .values import PriorSource, SubjectSource, TrainOptions
from .widgets import MAX_STEPS, bool_widget, float_widget, int_widget, seed


def source_inputs() -> list[io.Input]:
    """The inputs that say what to train on."""
    return [
        SubjectType.Input("subject", tooltip="The photographs, from a Subject node."),
        PriorType.Input(
            "class_images",
            optional=True,
            tooltip="Prior preservation. Not connected: none, and the whole class may come to look "
            "like the subject.",
        ),
        OptionsType.Input("options", optional=True, tooltip="Settings that seldom need changing."),
        io.Combo.Input(
            "base_model",
            options=host.model_names("checkpoints"),
            tooltip="A Stable Diffusion 1.5 checkpoint, read from its file.",
        ),
        io.String.Input(
            "name",
            default="",
            placeholder="that of the photographs' folder",
            tooltip="Start of the file's name: letters and digits of any script, - _ . and inner "
            "spaces. Empty: the name of the photographs' folder. A new name alone does not "
            "retrain: the existing file is returned under its own name, unless attempt is raised.",
        ),
    ]


def hyperparameter_inputs(learning_rate: float, optimizer: str) -> list[io.Input]:
    """The inputs that say how to train; the arguments are the method's defaults."""
    return [*_learning_inputs(learning_rate), *_run_inputs(optimizer)]


def _learning_inputs(learning_rate: float) -> list[io.Input]:
    return [
        int_widget(
            "steps",
            800,
            1,
            MAX_STEPS,
            "Weight updates. Steps times batch size and accumulation: 50 to 100 per photograph.",
        ),
        float_widget(
            "learning_rate",
            learning_rate,
            1e-9,
            10.0,
            1e-7,
            "Size of each update. Larger values learn faster and forget more.",
        ),
        bool_widget(
            "train_text_encoder",
            "Also train the text encoder, which learns what the token means.",
            default=True,
        ),
        int_widget("batch_size", 1, 1, 1024, "Photographs per step; more take more memory."),
    ]


def _run_inputs(optimizer: str) -> list[io.Input]:
    return [
        io.Combo.Input(
            "optimizer",
            options=[AUTO, "adamw", "adamw8bit", "prodigy"],
            default=optimizer,
            tooltip="adamw8bit saves memory and needs bitsandbytes; auto selects it on a CUDA GPU "
            "where bitsandbytes is installed, else adamw. prodigy needs prodigyopt and a learning "
            "rate of 1.",
        ),
        io.Combo.Input(
            "precision",
            options=["fp16", "bf16", "fp32"],
            default="fp16",
            tooltip="Precision of the computation; trained weights are always kept in fp32.",
        ),
        int_widget(
            "preview_every",
            200,
            0,
            MAX_STEPS,
            "Steps between preview images during training; 0: none.",
        ),
        seed(
            "seed",
            "Seed of everything random in training. The same seed gives the same adapter.",
        ),
        int_widget(
            "attempt",
            0,
            0,
            MAX_STEPS,
            "An identical training is reused, not repeated; change this to train it again.",
            advanced=True,
        ),
    ]


def adapter_outputs() -> list[io.Output]:
    """The file's name, of any type: core's loaders refuse COMBO and STRING outputs."""
    return [
        io.AnyType.Output(
            id="adapter",
            display_name="adapter",
            tooltip="The trained file's name, for Load Adapter or core's loaders.",
        )
    ]


def record_outputs() -> list[io.Output]:
    """The loss of each step, a report, and the base model's name."""
    return [
        LossMapType.Output(
            id="loss", display_name="loss", tooltip="Loss of each step, for Plot Loss Graph."
        ),
        io.String.Output(id="report", display_name="report", tooltip="What was trained, and how."),
        io.AnyType.Output(
            id="base_model",
            display_name="base_model",
            tooltip="The base model's name, for ckpt_name of Load Checkpoint, so that you choose "
            "it only once.",
        ),
    ]


def validate_train_inputs(base_model: str | None, name: str | None, optimizer: str | None) -> bool:
    """Checks what is known before the queue starts; returns True. Raises LikenessError.

    None stands for a connected input, which is checked when its value arrives.
    """
    if base_model is not None:
        identify(host.model_path("checkpoints", base_model))
    recipe_from_data({} if name is None else {"name": name})
    require_dependencies()
    if optimizer not in (None, AUTO):
        check_packages(optimizer={"name": optimizer})
    return True


REUSED = "This training already finished and is reused. Raise attempt to train it again."

_returned_adapters: set[Path] = set()  # trained again if they are deleted
_stopped_runs: dict[RunFolder, int] = {}  # returned stopped runs: mtime of the result, in ns


def fingerprint(base_model: str | None) -> str:
    """Changes when the base model's file is replaced, a stopped run is to resume or was resumed
    elsewhere, or an adapter is deleted. None stands for a connected base model.
    """
    try:
        file = file_fingerprint(host.model_path("checkpoints", base_model)) if base_model else ""
    except LikenessError as error:
        file = str(error)
    deleted = sum(not path.is_file() for path in _returned_adapters)
    # Resumed in a terminal, for example.
    elsewhere = sum(_result_mtime(run) != time for run, time in _stopped_runs.items())
    return f"{file} {len(resume_requests)} {deleted} {elsewhere}"


def _result_mtime(run: RunFolder) -> int:
    """When the run's result was written, in ns; 0 without one."""
    try:
        return run.result_file.stat().st_mtime_ns
    except OSError:
        return 0


def train_from_inputs(
    method: dict[str, Any],
    hidden: Any,
    *,
    subject: SubjectSource,
    base_model: str,
    class_images: PriorSource | None = None,
    options: TrainOptions | None = None,
    **widgets: Any,
) -> Result:
    """Trains with a train node's inputs by the recipe's `method`. Raises as `run` does."""
    prior = class_images.spec if class_images else None
    device = host.training_device()
    widgets["name"] = widgets["name"] or miniature.name_of(subject.folder)
    start = options.start if options else None
    with errors_name_widgets():
        recipe = build_recipe(subject.spec, prior, options, method=method, device=device, **widgets)
        return run(recipe, base_model, subject, class_images, hidden, start)


def run(
    recipe: Recipe,
    base_model: str,
    subject: SubjectSource,
    prior: PriorSource | None,
    hidden: Any,
    start: Path | None,
) -> Result:
    """Trains in a separate process while the node shows its progress; `start` as in `Places`.

    Raises ComfyUI's interruption when the user cancels, and LikenessError.
    """
    where = Places.for_output(
        host.output_folder(),
        base=host.model_path("checkpoints", base_model),
        photos=subject.folder,
        class_images=prior.folder if prior else None,
        tokenizers=(host.tokenizer_folder(), *miniature.tokenizers()),
        start=start,
    )
    progress = host.Progress(hidden.unique_id)
    reporter = RunReporter(hidden, progress)
    try:
        result = train(
            recipe,
            where,
            on_event=reporter.show,
            interrupted=host.interrupted,
            before_start=reporter.begin,
            device=host.training_device(),
            reuse_stopped=True,
            on_read=on_read(progress),
        )
        if result.reused and not result.stopped:
            progress.set_status(REUSED)
        reporter.publish(result.folder)
        reused = reused_message(result, named(recipe, where)) if result.reused else ""
        reporter.remark(result.folder, reused)
        _returned_adapters.add(result.adapter)
        run = RunFolder(result.folder)
        _stopped_runs.pop(run, None)
        if result.stopped:
            _stopped_runs[run] = _result_mtime(run)
        return result
    finally:
        reporter.end()


def adapter_name(result: Result, folder: Path) -> str:
    """The adapter's name as ComfyUI lists it: relative to `folder`, with the system's separator."""
    if result.adapter.is_relative_to(folder):
        return str(result.adapter.relative_to(folder))
    return result.adapter.name


def loss_map(result: Result) -> dict[str, list[float]]:
    """Core's LOSS_MAP. A constant loss gets a second value: core divides by the range."""
    losses = list(result.losses) or [0.0]
    if min(losses) == max(losses):
        losses.append(math.nextafter(losses[-1], math.inf))
    return {"loss": losses}


def report(result: Result) -> str:
    """What was trained, where the file is, how the loss went, and how long each stage of the
    last attempt took.
    """
    stopped = (
        f"stopped and saved after {result.steps} of {result.recipe.schedule.steps} steps: "
        "Resume in the panel trains the remaining steps"
    )
    losses = result.losses
    tenth = max(1, len(losses) // 10)
    times = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in result.seconds.items())
    lines = [
        f"{result.adapter.name}: {result.recipe.label()}, {result.steps} steps",
        *([REUSED] if result.reused and not result.stopped else []),
        *([stopped] if result.stopped else []),
        f"saved as {result.adapter}",
        f"run folder: {result.folder}",
        f"precision {result.precision}, {result.peak_memory / 1024**3:.1f} GB",
        f"last attempt: {times}",
        *map(name_widgets, result.notes),
    ]
    if losses:
        first = sum(losses[:tenth]) / tenth
        lines.insert(1, f"loss {first:.4f} at the start, {final_loss(losses):.4f} at the end")
    return "\n".join(lines)
