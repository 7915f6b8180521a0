"""Pictures drawn while training, at the recipe's fixed prompts and noise."""

from __future__ import annotations

import torch
from PIL import Image

from .base_model import BaseModel
from .run import Run
from .sampler import decode, noise_for, sample, sigmas_for
from .step import Learner
from .text import encode_text, tokenize


@torch.no_grad()
def draw_previews(run: Run, base: BaseModel, learner: Learner, step: int) -> None:
    """Draws `samples/step-000400-0.png`, … with the weights as they are."""
    spec, folder = run.recipe.previews, run.folder.samples
    folder.mkdir(exist_ok=True)
    noise = noise_for([spec.seed], spec.height, spec.width)
    training = learner.unet.training, base.text_encoder.training
    learner.unet.eval()
    base.text_encoder.eval()
    for index, template in enumerate(spec.prompts):
        with learner.autocast():
            ids = tokenize(base.tokenizer, [run.recipe.fill(template), spec.negative])
            context = encode_text(
                base.text_encoder, ids.to(learner.device), run.recipe.text_encoder.clip_skip
            )
            latents = sample(
                learner.unet,
                context[:1],
                context[1:],
                noise.to(learner.device),
                sigmas=sigmas_for(spec.steps),
                guidance=spec.guidance,
                prediction=base.prediction,
            )
        path = folder / f"step-{step:06d}-{index}.png"
        Image.fromarray(decode(base.vae, latents)[0]).save(path)
        relative = path.relative_to(run.folder.path).as_posix()
        run.emit("preview", step=step, index=index, path=relative)
    learner.unet.train(training[0])
    base.text_encoder.train(training[1])
