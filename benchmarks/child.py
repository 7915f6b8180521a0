"""Runs one side in this process under the instruments that both sides share.

``python child.py REPORT likeness RECIPE PLACES`` or ``python child.py REPORT SCRIPT ARGUMENT…``.
The report is JSON: the time after each optimizer step, and what was encoded how often.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass
class Report:
    """What was measured: after each step the seconds since the epoch and of the process's CPU time.

    `gpu_memory` is the peak in bytes, 0 without a GPU.
    """

    moments: list[float] = field(default_factory=list)
    cpu_moments: list[float] = field(default_factory=list)
    pictures: int = 0  # through the VAE's encoder
    prompts: int = 0  # through the text encoder
    gpu_memory: int = 0
    error: str = ""


def attach(report: Report) -> None:
    """Hooks on every optimizer's step, the VAE's encoder and the text encoder."""
    import torch
    from diffusers import AutoencoderKL
    from torch.optim.optimizer import register_optimizer_step_post_hook
    from transformers import CLIPTextModel

    cuda = torch.cuda.is_available()

    def after_step(*_: Any) -> None:
        if cuda:
            torch.cuda.synchronize()
            report.gpu_memory = torch.cuda.max_memory_reserved()
        report.moments.append(time.time())
        report.cpu_moments.append(time.process_time())

    register_optimizer_step_post_hook(after_step)
    AutoencoderKL.encode = _counting(AutoencoderKL.encode, report, "pictures")
    CLIPTextModel.forward = _counting(CLIPTextModel.forward, report, "prompts")


def _counting(method: Callable[..., Any], report: Report, name: str) -> Callable[..., Any]:
    """`method`, which adds the size of its first argument's batch to the report's `name`."""

    @wraps(method)
    def counted(self: Any, *given: Any, **named: Any) -> Any:
        batch = given[0] if given else next(iter(named.values()))
        setattr(report, name, getattr(report, name) + len(batch))
        return method(self, *given, **named)

    return counted


def train_ours(recipe_file: str, places_file: str) -> None:
    """What `likeness train` does, with the run in this process."""
    runpy.run_path(str(HERE.parent / "__main__.py"), run_name="likeness_main")["load_package"]()
    from likeness.trainers.places import Places
    from likeness.trainers.process import run_process
    from likeness.trainers.recipe import read_recipe
    from likeness.trainers.runs import prepare

    places = Places.model_validate_json(Path(places_file).read_text(encoding="utf-8"))
    folder = prepare(read_recipe(Path(recipe_file)), places)
    if run_process(folder.path, follow_parent=False):
        last = folder.events.read_text(encoding="utf-8").splitlines()[-1]
        raise RuntimeError(json.loads(last)["message"])


def main() -> None:
    """Runs the side named on the command line; the report is written however it ends."""
    # A script's `import` must not find this folder's modules.
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]
    file, target, *arguments = sys.argv[1:]
    report = Report()
    try:
        attach(report)
        if target == "likeness":
            train_ours(*arguments)
        else:
            sys.argv = [target, *arguments]
            runpy.run_path(target, run_name="__main__")
    except BaseException as error:
        report.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        Path(file).write_text(json.dumps(asdict(report)), encoding="utf-8")


if __name__ == "__main__":
    main()
