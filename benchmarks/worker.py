"""Runs one side in this process with the instrumentation that all sides share.

``python worker.py REPORT likeness RECIPE PLACES [OPTION…]`` or ``python worker.py REPORT SCRIPT
ARGUMENT…``. The report is JSON: the time after each optimizer step, and encoder call counts.
"""

from __future__ import annotations

import argparse
import json
import runpy
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass
class Report:
    """Measurements: after each step, seconds since epoch and CPU seconds of the process.

    A drawing script gets this object as the global REPORT and fills in `moments` and `drawn`.
    """

    moments: list[float] = field(default_factory=list)
    cpu_moments: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    images: int = 0  # through the VAE's encoder
    prompts: int = 0  # through the text encoder
    drawn: int = 0
    flops: float = 0.0  # of the second optimizer step, if counted
    gpu_memory: int = 0  # peak in bytes, 0 without a GPU
    tier: str = ""  # ours: the memory tier
    error: str = ""

    def note(self) -> None:
        """Records the current time, after synchronising with the GPU."""
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
            self.gpu_memory = torch.cuda.max_memory_reserved()
        self.moments.append(time.time())
        self.cpu_moments.append(time.process_time())


def record_steps(report: Report) -> None:
    """Hooks every optimizer's step."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(lambda *_: report.note())


def record_our_steps(report: Report, after_step: Callable[[], None]) -> None:
    """Hooks our steps; the lowest memory tier calls an optimizer's step once per weight."""
    from likeness.trainers import loop

    training_step = loop.training_step

    @wraps(training_step)
    def recorded(*args: Any, **kwargs: Any) -> Any:
        losses = training_step(*args, **kwargs)
        report.note()
        after_step()
        return losses

    loop.training_step = recorded


def attach(report: Report) -> None:
    """Hooks the VAE, the text encoder and accelerate's log, if installed."""
    with suppress(ImportError):  # not needed in ComfyUI's Python
        from accelerate import Accelerator
        from diffusers import AutoencoderKL
        from transformers import CLIPTextModel

        AutoencoderKL.encode = _counting(AutoencoderKL.encode, report, "images")
        CLIPTextModel.forward = _counting(CLIPTextModel.forward, report, "prompts")
        Accelerator.log = _recording_losses(Accelerator.log, report)


def _counting(method: Callable[..., Any], report: Report, name: str) -> Callable[..., Any]:
    """Wraps `method` to add the batch size of its first argument to the report's field `name`."""

    @wraps(method)
    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = args[0] if args else next(iter(kwargs.values()))
        setattr(report, name, getattr(report, name) + len(batch))
        return method(self, *args, **kwargs)

    return counted


def _recording_losses(method: Callable[..., Any], report: Report) -> Callable[..., Any]:
    """Wraps accelerate's `log` to record the scripts' losses."""

    @wraps(method)
    def recorded(self: Any, values: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if "loss" in values:
            report.losses.append(float(values["loss"]))
        return method(self, values, *args, **kwargs)

    return recorded


def flops_counter(report: Report) -> Callable[[], None]:
    """A function to call after each step, which counts the FLOPs of the second step.

    PyTorch's counter covers matrix products, convolutions and GPU attention; CPU attention is added
    here.
    """
    from torch.utils import flop_counter as of

    name = "_scaled_dot_product_flash_attention_for_cpu"
    mapping = {
        getattr(of.aten, name): lambda q, k, v, *_, **__: of.sdpa_flop_count(q, k, v),
        getattr(of.aten, f"{name}_backward"): lambda out, q, k, v, *_, **__: (
            of.sdpa_backward_flop_count(out, q, k, v)
        ),
    }
    counter = of.FlopCounterMode(display=False, custom_mapping=mapping)

    def after_step() -> None:
        if len(report.moments) == 1:
            counter.__enter__()
        elif len(report.moments) == 2:
            counter.__exit__(None, None, None)
            report.flops = counter.get_total_flops()

    return after_step


def train_ours(report: Report, arguments: list[str]) -> None:
    """Does what `likeness train` does, with the run in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe", type=Path)
    parser.add_argument("places", type=Path)
    parser.add_argument("--patch", action="append", default=[])
    parser.add_argument("--count-flops", action="store_true")
    args = parser.parse_args(arguments)
    runpy.run_path(str(HERE.parent / "__main__.py"), run_name="likeness_main")["load_package"]()
    from likeness.benchmarks.patches import PATCHES
    from likeness.trainers.places import Places
    from likeness.trainers.preparation import prepare
    from likeness.trainers.process import run_process
    from likeness.trainers.recipe import read_recipe

    for name in args.patch:
        PATCHES[name]()
    record_our_steps(report, flops_counter(report) if args.count_flops else lambda: None)
    places = Places.model_validate_json(args.places.read_text(encoding="utf-8"))
    folder = prepare(read_recipe(args.recipe), places)
    if run_process(folder.path, follow_parent=False):
        last = folder.events.read_text(encoding="utf-8").splitlines()[-1]
        raise RuntimeError(json.loads(last)["message"])
    result = json.loads(folder.result_file.read_text(encoding="utf-8"))
    report.losses, report.stages = result["losses"], result["seconds"]
    report.tier = json.loads(folder.tier_file.read_text(encoding="utf-8"))["tier"]


def run_script(report: Report, script: str, arguments: list[str]) -> None:
    """Runs a script as Python does, with its own folder on the path, but not this folder."""
    folder = Path(script).resolve().parent
    if folder != HERE:
        sys.path.insert(0, str(folder))
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__", init_globals={"REPORT": report})


def main() -> None:
    """Runs the side named on the command line; always writes the report."""
    # A script's `import` must not find this folder's modules.
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]
    file, target, *arguments = sys.argv[1:]
    report = Report()
    try:
        attach(report)
        if target == "likeness":
            train_ours(report, arguments)
        else:
            record_steps(report)
            run_script(report, target, arguments)
    except BaseException as error:
        report.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        Path(file).write_text(json.dumps(asdict(report)), encoding="utf-8")


if __name__ == "__main__":
    main()
