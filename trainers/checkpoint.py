"""The state of a run on disk: safetensors for tensors, JSON for numbers, whole or not at all.

`checkpoints/step-000400/` holds `weights.safetensors` (what is trained, by name),
`optimizer.safetensors` (`<parameter>|<state>`), `average.safetensors` (if weights are averaged)
and `state.json` (step, digest of the recipe, scalars).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import Parameter

from .errors import CheckpointError
from .files import sync_file, sync_folder, write_whole

VERSION = 1

# Given by the recipe, so not part of the state.
_FROM_RECIPE = {"lr", "initial_lr", "eps", "weight_decay"}


@dataclass
class State:
    """All that changes while a run trains."""

    parameters: dict[str, Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: EMAModel | None


def step_folder(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint after `step` optimizer steps."""
    return checkpoints / f"step-{step:06d}"


def save(
    checkpoints: Path, step: int, state: State, digest: str, losses: list[float], keep: int
) -> Path:
    """Writes the state after `step` steps, then removes all but the newest `keep` checkpoints.

    The folder appears under its name only when everything in it is on the disk. Raises
    CheckpointError, for example on a full disk; then the earlier checkpoints are as they were.
    """
    target = step_folder(checkpoints, step)
    partial = checkpoints / f".partial-{target.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(partial, step, state, digest, losses)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"The checkpoint after step {step} could not be written to {checkpoints}: {error}. "
            "Earlier ones are kept: make room and start again, and the run goes on from there."
        ) from error
    sync_folder(checkpoints)
    # A later one is left only where it was found damaged; it does not count.
    for old in [past for past in found(checkpoints) if past <= step][:-keep]:
        shutil.rmtree(step_folder(checkpoints, old), ignore_errors=True)
    return target


def _write(folder: Path, step: int, state: State, digest: str, losses: list[float]) -> None:
    tensors, scalars = _optimizer_state(state)
    _write_tensors(folder / "weights.safetensors", state.parameters)
    _write_tensors(folder / "optimizer.safetensors", tensors)
    if state.average is not None:
        shadows = dict(zip(state.parameters, state.average.shadow_params, strict=True))
        _write_tensors(folder / "average.safetensors", shadows)
    document = {
        "version": VERSION,
        "step": step,
        "recipe": digest,
        "optimizer": scalars,
        "groups": _group_scalars(state.optimizer),
        "scaler": state.scaler.state_dict(),
        "average_steps": state.average.optimization_step if state.average else None,
        "losses": losses,
    }
    write_whole(folder / "state.json", json.dumps(document))


def found(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints in a folder, ascending."""
    names = (p.name for p in checkpoints.glob("step-*") if (p / "state.json").is_file())
    return sorted(int(n[5:]) for n in names if re.fullmatch(r"step-\d{6,}", n))


def load(folder: Path, state: State, digest: str) -> tuple[int, list[float]]:
    """Puts a checkpoint's values into `state`; returns its step and the losses so far.

    Raises CheckpointError if it is damaged or was written under another recipe than `digest`.
    """
    try:
        document = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "weights.safetensors")
        tensors = load_file(folder / "optimizer.safetensors")
        shadows = load_file(folder / "average.safetensors") if state.average else {}
        belongs = document["version"] == VERSION and document["recipe"] == digest
        shapes = {name: parameter.shape for name, parameter in state.parameters.items()}
        fits = {name: tensor.shape for name, tensor in weights.items()} == shapes
        step, losses = int(document["step"]), list(document["losses"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"The checkpoint {folder} is damaged: {error}") from None
    if not (belongs and fits):
        raise CheckpointError(f"The checkpoint {folder} belongs to another run or version.")
    with torch.no_grad():
        for name, parameter in state.parameters.items():
            parameter.copy_(weights[name])
    _restore_optimizer(state, tensors, document)
    if document["scaler"]:  # empty if the run computed without one so far
        state.scaler.load_state_dict(document["scaler"])
    if state.average is not None:
        state.average.optimization_step = document["average_steps"]
        for name, shadow in zip(state.parameters, state.average.shadow_params, strict=True):
            shadow.copy_(shadows[name])
    return step, losses


def _optimizer_state(state: State) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
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


def _restore_optimizer(state: State, tensors: dict[str, Tensor], document: dict[str, Any]) -> None:
    state.optimizer.state.clear()
    for name, values in document["optimizer"].items():
        state.optimizer.state[state.parameters[name]].update(values)
    for key, value in tensors.items():
        name, _, entry = key.rpartition("|")
        parameter = state.parameters[name]
        # torch keeps the step count on the CPU unless the optimizer is fused.
        on_cpu = value.ndim == 0 and not state.optimizer.param_groups[0].get("fused")
        device = "cpu" if on_cpu else parameter.device
        state.optimizer.state[parameter][entry] = value.to(device)
    for group, saved in zip(state.optimizer.param_groups, document["groups"], strict=True):
        group.update(saved)


def _write_tensors(path: Path, tensors: dict[str, Any]) -> None:
    plain: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        # Optimizers share tables between parameters, which safetensors refuses.
        plain[name] = value.clone() if value.data_ptr() in stored else value
        stored.add(value.data_ptr())
    save_file(plain, path)
    sync_file(path)
