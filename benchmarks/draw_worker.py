"""Draws images as one side of a benchmark; run by `worker.py`, which provides REPORT.

``draw_worker.py NAME TASK``: NAME is a key of `TASKS`, TASK a JSON file. The first moment of the
report starts the timing; each further one marks the end of a batch of images.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

Task = dict[str, Any]
_PACKAGE = Path(__file__).resolve().parents[1] / "__main__.py"


def drawn(count: int) -> None:
    """Records that `count` more images are written; 0 starts the timing."""
    REPORT.drawn += count  # type: ignore[name-defined]  # noqa: F821
    REPORT.note()  # type: ignore[name-defined]  # noqa: F821


# Class images.


def our_class_images(task: Task) -> None:
    """Draws class images as a run does."""
    import torch
    from likeness.trainers.base_model import load_base
    from likeness.trainers.cpu import prepare_for_cpu
    from likeness.trainers.prior import draw_class_images
    from likeness.trainers.recipe import Prior

    device = torch.device(task["device"])
    base = load_base(Path(task["model"]), device=device)
    if device.type == "cpu":
        prepare_for_cpu(base.unet)  # as `loop.load`
    drawn(0)
    done = 0

    def progress(now: int, total: int) -> None:
        nonlocal done
        if now > done:
            drawn(now - done)
        done = now

    draw_class_images(
        base,
        Prior(count=task["count"], steps=task["steps"]),
        [task["prompt"]],
        Path(task["output"]),
        device=device,
        size=task["size"],
        progress=progress,
        notice=print,
    )


def pipeline_class_images(task: Task) -> None:
    """Draws class images as diffusers' DreamBooth scripts do: a pipeline, four at a time."""
    import hashlib

    pipeline = _pipeline(task)
    output = Path(task["output"])
    output.mkdir(parents=True)
    drawn(0)
    for start in range(0, task["count"], task["batch"]):
        count = min(task["batch"], task["count"] - start)
        images = pipeline(
            [task["prompt"]] * count,
            num_inference_steps=task["steps"],
            width=task["size"],
            height=task["size"],
        ).images
        for number, image in enumerate(images, start):
            name = hashlib.sha1(image.tobytes()).hexdigest()
            image.save(output / f"{number}-{name}.jpg")
        drawn(count)


def _pipeline(task: Task, **parts: Any) -> Any:
    """A pipeline on the device, in the scripts' precision, with SD 1.5's default sampler."""
    import torch
    from diffusers import PNDMScheduler, StableDiffusionPipeline

    dtype = torch.float16 if task["device"] == "cuda" else torch.float32
    pipeline = StableDiffusionPipeline.from_pretrained(
        task["model"], torch_dtype=dtype, safety_checker=None, local_files_only=True, **parts
    )
    pipeline.scheduler = PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(task["device"])


# Cells of a comparison.


def our_cells(task: Task) -> None:
    """Draws cells as `likeness compare` does."""
    from likeness.comparison.compare import ComparisonFiles, draw_missing
    from likeness.comparison.matrix import ImageSettings, Plan, Variant
    from likeness.comparison.prompts import Prompt, PromptSet
    from likeness.comparison.row_adapters import RowAdapter
    from likeness.trainers.digests import content_digest

    adapters = {name: file and Path(file) for name, file in task["variants"].items()}
    plan = Plan(
        variants=tuple(
            Variant(name=name, adapter=file and content_digest(file))
            for name, file in adapters.items()
        ),
        prompts=PromptSet(
            negative=task["negative"],
            prompts=tuple(
                Prompt(key=f"p{number}", text=text) for number, text in enumerate(task["prompts"])
            ),
        ),
        image=ImageSettings(width=task["size"], height=task["size"], steps=task["steps"]),
    )
    drawn(0)
    draw_missing(
        plan,
        [RowAdapter(name, file) for name, file in adapters.items()],
        ComparisonFiles(base=Path(task["checkpoint"]), output=Path(task["output"])),
        on_cell=lambda cell: drawn(1),
        device=task["device"],
    )


def pipeline_cells(task: Task) -> None:
    """Loops over a diffusers pipeline: loads LoRAs into it, replaces its UNet for fine-tunes."""
    import torch
    from diffusers import EulerDiscreteScheduler

    drawn(0)  # includes loading, because ours loads each variant when it is needed
    pipeline = _pipeline(task)
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    output = Path(task["output"])
    output.mkdir(parents=True)
    own = pipeline.unet
    for name, file in task["variants"].items():
        pipeline.unet = own
        if file and "lora" in name:
            pipeline.load_lora_weights(file, local_files_only=True)
        elif file:
            pipeline.unet = _tuned_unet(task, file, own)
        for number, text in enumerate(task["prompts"]):
            image = pipeline(
                text,
                negative_prompt=task["negative"],
                num_inference_steps=task["steps"],
                width=task["size"],
                height=task["size"],
                generator=torch.Generator().manual_seed(0),
            ).images[0]
            image.save(output / f"{name}-{number}.png")
            drawn(1)
        if file and "lora" in name:
            pipeline.unload_lora_weights()


def _tuned_unet(task: Task, file: str, own: Any) -> Any:
    """The UNet of a checkpoint; the base's text encoder is kept, which is less work than ours."""
    from diffusers import UNet2DConditionModel

    folder = Path(task["model"])
    unet = UNet2DConditionModel.from_single_file(
        file, config=str(folder), subfolder="unet", torch_dtype=own.dtype, local_files_only=True
    )
    return unet.to(own.device)


TASKS = {
    way.__name__: way
    for way in (our_class_images, pipeline_class_images, our_cells, pipeline_cells)
}

if __name__ == "__main__":
    runpy.run_path(str(_PACKAGE), run_name="likeness_main")["load_package"]()
    TASKS[sys.argv[1]](json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
