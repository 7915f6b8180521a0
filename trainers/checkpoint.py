"""Training checkpoints: safetensors for tensors, JSON for scalars, written atomically.

`checkpoints/step-000400/` contains `weights.safetensors` (trained weights by name),
`optimizer.safetensors` (`<parameter>|<state>`), `average.safetensors` (with EMA only) and
`state.json` (step, digest of the recipe, scalars).
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import Parameter

from .errors import CheckpointError, OptimizerMismatch, OutOfSpace
from .files import is_disk_full, make_folder, move_folder, remove_folder, write_atomic
from .run_folder import saved_steps
from .weights import write_tensors

VERSION = 1

# Set by the recipe, so not part of the state.
_FROM_RECIPE = {"lr", "initial_lr", "eps", "weight_decay"}


@dataclass
class TrainingState:
    """Everything that changes during training."""

    parameters: dict[str, Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: EMAModel | None


def step_folder(checkpoints: Path, step: int) -> Path:
    """Folder of the checkpoint after `step` optimizer steps."""
    return checkpoints / f"step-{step:06d}"


def save(
    checkpoints: Path,
    step: int,
    state: TrainingState,
    digest: str,
    losses: list[float],
    keep: int | None = None,
    processes: int = 1,
) -> Path:
    """Saves the state after `step` steps, prunes to `keep` if given, and returns the folder.

    The folder gets its name only once everything in it is on disk. Raises OutOfSpace on a full
    disk, otherwise CheckpointError; earlier checkpoints are then unchanged.
    """
    target = step_folder(checkpoints, step)
    partial = checkpoints / f".partial-{target.name}"
    try:
        make_folder(checkpoints)
        for left in (*checkpoints.glob(".partial-step-*"), *checkpoints.glob(".old-step-*")):
            shutil.rmtree(left, ignore_errors=True)  # left by a killed process
        partial.mkdir()
        _write(partial, step, state, digest, losses, processes)
        move_folder(partial, target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        kind = OutOfSpace if is_disk_full(error) else CheckpointError
        raise kind(
            f"The training state after step {step} could not be written to {checkpoints}: {error}. "
            "Earlier ones are kept. Free some space, then start again to resume from them."
        ) from error
    if keep is not None:
        prune(checkpoints, step, keep)
    return target


def prune(checkpoints: Path, newest: int, keep: int) -> None:
    """Removes all but the `keep` newest checkpoints (0: every one) up to step `newest`."""
    # A later checkpoint exists only if it was found damaged; it does not count.
    past = [step for step in saved_steps(checkpoints) if step <= newest]
    for old in past[: max(0, len(past) - keep)]:
        with suppress(OSError):  # open in another program, on Windows: removed by a later call
            remove_folder(step_folder(checkpoints, old))


def discard(checkpoints: Path, step: int) -> None:
    """Removes the checkpoint of a step if there is an earlier one to resume from."""
    if any(past < step for past in saved_steps(checkpoints)):
        with suppress(OSError):  # the divergence is the error to report
            remove_folder(step_folder(checkpoints, step))


def _write(
    folder: Path,
    step: int,
    state: TrainingState,
    digest: str,
    losses: list[float],
    processes: int,
) -> None:
    tensors, scalars = _optimizer_state(state)
    write_tensors(folder / "weights.safetensors", state.parameters)
    write_tensors(folder / "optimizer.safetensors", tensors)
    if state.ema is not None:
        shadows = dict(zip(state.parameters, state.ema.shadow_params, strict=True))
        write_tensors(folder / "average.safetensors", shadows)
    document = {
        "version": VERSION,
        "step": step,
        "recipe": digest,
        "optimizer_kind": type(state.optimizer).__name__,
        "optimizer": scalars,
        "groups": _group_scalars(state.optimizer),
        "scaler": state.scaler.state_dict(),
        "average_steps": state.ema.optimization_step if state.ema else None,
        "losses": losses,
        "processes": processes,
    }
    write_atomic(folder / "state.json", json.dumps(document))


def saved_processes(folder: Path) -> int | None:
    """How many processes trained a checkpoint; None if it is damaged or does not say."""
    try:
        return int(json.loads((folder / "state.json").read_text(encoding="utf-8"))["processes"])
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return None


def load(folder: Path, state: TrainingState, digest: str) -> tuple[int, list[float]]:
    """Restores `state` from a checkpoint; returns its step and the losses so far.

    Raises CheckpointError if it is damaged or belongs to a recipe other than `digest`, and
    OptimizerMismatch if another optimizer saved it (in another memory tier); `state` is then
    unchanged. Raises OSError, not treated as damage, if a file cannot be read at the moment, for
    lack of memory or because of a disk fault.
    """
    try:
        document = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "weights.safetensors")
        tensors = load_file(folder / "optimizer.safetensors")
        shadows = load_file(folder / "average.safetensors") if state.ema else {}
        belongs = document["version"] == VERSION and document["recipe"] == digest
        kind = type(state.optimizer).__name__
        belongs = belongs and _shapes_match(weights, state)
        belongs = belongs and (state.ema is None or _shapes_match(shadows, state))
        step, losses = int(document["step"]), [float(loss) for loss in document["losses"]]
        # Another optimizer's state is not moved to the device, where it may not fit.
        saved_by = str(document["optimizer_kind"])
        ours = belongs and saved_by == kind
        restored = _restored_optimizer_state(state, tensors, document["optimizer"]) if ours else {}
        numbers = [dict(group) for group in document["groups"]]
        groups = list(zip(state.optimizer.param_groups, numbers, strict=True))
        average_steps = int(document["average_steps"]) if state.ema else 0
        scaler = dict(document["scaler"])
    except (*_CORRUPTION_ERRORS, SafetensorError) as error:
        # safetensors reports every file that it cannot open as not found.
        if isinstance(error, FileNotFoundError) and _all_files_exist(folder, state):
            raise OSError(f"The training state {folder} cannot be read: {error}") from error
        raise CheckpointError(f"The training state {folder} is damaged: {error}") from None
    if not belongs:
        raise CheckpointError(
            f"The training state {folder} belongs to another run or version, or has other weights."
        )
    if not ours:
        raise OptimizerMismatch(
            f"The training state {folder} has the optimizer state of {saved_by}, but this run uses "
            f"{kind}. Set compute.memory as before, or raise attempt to train from the start."
        )
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(weights[name])
    state.optimizer.state.clear()
    state.optimizer.state.update(restored)
    for group, saved in groups:
        group.update(saved)
    if scaler:  # empty if the run has not used one so far
        state.scaler.load_state_dict(scaler)
    if state.ema is not None:
        state.ema.optimization_step = average_steps
        for name, shadow in zip(state.parameters, state.ema.shadow_params, strict=True):
            shadow.copy_(shadows[name])
    return step, losses


# What malformed content raises.
_CORRUPTION_ERRORS = (
    *(FileNotFoundError, ValueError, LookupError, TypeError, AttributeError),
    *(OverflowError, RecursionError),
)


def _all_files_exist(folder: Path, state: TrainingState) -> bool:
    names = ["state.json", "weights.safetensors", "optimizer.safetensors"]
    names += ["average.safetensors"] if state.ema else []
    return all(os.path.lexists(folder / name) for name in names)


def _shapes_match(tensors: dict[str, Tensor], state: TrainingState) -> bool:
    shapes = {name: parameter.shape for name, parameter in state.parameters.items()}
    return {name: tensor.shape for name, tensor in tensors.items()} == shapes


def _optimizer_state(state: TrainingState) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for name, parameter in state.parameters.items():
        for key, value in state.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{name}|{key}"] = value
            else:
                scalars.setdefault(name, {})[key] = value
    return tensors, scalars


def _group_scalars(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    plain = (bool, int, float, str, type(None))
    return [
        {
            key: value
            for key, value in group.items()
            if isinstance(value, plain) and key not in _FROM_RECIPE
        }
        for group in optimizer.param_groups
    ]


def _restored_optimizer_state(
    state: TrainingState, tensors: dict[str, Tensor], scalars: dict[str, dict[str, Any]]
) -> dict[Tensor, dict[str, Any]]:
    """Optimizer state by parameter. Raises LookupError for an unknown name."""
    restored: dict[Tensor, dict[str, Any]] = {}
    for name, values in scalars.items():
        restored[state.parameters[name]] = dict(values)
    for key, value in tensors.items():
        name, _, entry = key.rpartition("|")
        parameter = state.parameters[name]
        # torch keeps the step count on the CPU unless the optimizer is fused.
        on_cpu = value.ndim == 0 and not state.optimizer.param_groups[0].get("fused")
        device = "cpu" if on_cpu else parameter.device
        # Copied: a removed file keeps its disk space while it is mapped.
        restored.setdefault(parameter, {})[entry] = value.to(device, copy=True)
    return restored
