"""Preview images drawn during training, with the recipe's fixed prompts and noise."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from .base_model import BaseModel
from .errors import RunCancelled
from .files import write_atomic
from .image_io import png
from .run import Run
from .sampler import calculate_sigmas, decode, prepare_noise, sample
from .step import Learner
from .text_encoding import encode_text, tokenize


def draw_previews(run: Run, base: BaseModel, learner: Learner, step: int) -> None:
    """Draws `samples/step-000400-0.png`, … with the current weights, until asked to stop."""
    try:
        with torch.no_grad(), learner.eval_mode():
            for index, template in enumerate(run.recipe.previews.prompts):
                _draw(run, base, learner, template, preview_file(run, step, index))
                path = preview_file(run, step, index).relative_to(run.folder.path).as_posix()
                run.emit("preview", step=step, index=index, path=path)
    except RunCancelled:
        return  # a run that resumes at this step draws the missing ones


def has_previews(run: Run, step: int) -> bool:
    """Whether all previews of a step exist."""
    count = len(run.recipe.previews.prompts)
    return all(preview_file(run, step, index).is_file() for index in range(count))


def preview_file(run: Run, step: int, index: int) -> Path:
    """The path of a prompt's preview at a step."""
    return run.folder.samples / f"step-{step:06d}-{index}.png"


def _draw(run: Run, base: BaseModel, learner: Learner, template: str, path: Path) -> None:
    spec = run.recipe.previews
    with learner.autocast():
        text, prompts = run.recipe.text_encoder, [run.recipe.fill(template), spec.negative]
        ids = tokenize(base.tokenizer, prompts, text.max_tokens).to(learner.device)
        context = encode_text(base.text_encoder, ids, text.clip_skip)
        latents = sample(
            learner.unet,
            context[:1],
            context[1:],
            prepare_noise([spec.seed], spec.height, spec.width).to(learner.device),
            sigmas=calculate_sigmas(spec.steps),
            guidance=spec.guidance,
            prediction=base.prediction,
            interrupted=lambda: bool(run.stop.local_request()),
        )
    write_atomic(path, png(Image.fromarray(decode(base.vae, latents)[0])), durable=False)
