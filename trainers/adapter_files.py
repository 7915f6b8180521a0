"""Names of adapter files, including those saved during training. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

# A suffix such as -2 follows if the name is taken.
_INTERMEDIATE = re.compile(r"(.*)-step(\d{6,})(?:-(\d+))?\.safetensors")
_FINISHED = re.compile(r"(.*-[0-9a-f]{8})(?:-\d{1,3})?\.safetensors")


def adapter_stem(run: str, steps: int | None, number: int = 1) -> str:
    """File name without its extension after `steps` steps, or None at the end of training.

    `number` is above 1 if the name is taken.
    """
    step = "" if steps is None else f"-step{steps:06d}"
    return run + step + (f"-{number}" if number > 1 else "")


def run_name_from(file: str) -> str:
    """Run name in an adapter's file name."""
    match = _INTERMEDIATE.fullmatch(file) or _FINISHED.fullmatch(file)
    return match[1] if match else file.removesuffix(".safetensors")


def is_intermediate(file: str) -> bool:
    """Whether a file name is that of an adapter saved before the last step."""
    return _INTERMEDIATE.fullmatch(file) is not None


def intermediate_adapters(folder: Path, run: str) -> list[Path]:
    """Files in a folder that a run saved before its last step, with any number."""
    return [path for path in folder.glob(f"{run}-step*.safetensors") if is_intermediate(path.name)]


def group_by_step(files: Iterable[str]) -> dict[str, dict[int, str]]:
    """Intermediate adapters by run and step; of several for one step, the one saved last."""
    found: dict[str, dict[int, tuple[int, str]]] = {}
    for file in files:
        if match := _INTERMEDIATE.fullmatch(file):
            steps, one = found.setdefault(match[1], {}), (int(match[3] or 1), file)
            steps[int(match[2])] = max(one, steps.get(int(match[2]), one))
    return {run: {step: one[1] for step, one in steps.items()} for run, steps in found.items()}
