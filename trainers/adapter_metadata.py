"""Metadata written into adapter files. No torch here.

The keys are kohya's ``ss_``, those of github.com/Stability-AI/ModelSpec 1.0.0, and our own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .adapter import PREDICTION_KEY, RECIPE_KEY, TRIGGER_PHRASE_KEY
from .adapter_names import file_alpha
from .recipe import LoRA, Recipe
from .tokenizer import CHUNK_TOKENS

NETWORK_ARGS_KEY = "ss_network_args"


def build_metadata(
    recipe: Recipe, *, steps: int, losses: Sequence[float], prediction: str = "epsilon",
    precision: str | None = None, photos: int = 0,
) -> dict[str, str]:  # fmt: skip
    """Metadata of a result after `steps` optimizer steps, with one loss per step.

    `prediction` is the base model's, ``epsilon`` or ``v_prediction``; `precision` is the one
    trained in; `photos` is the number of photographs. It contains no path, user name or time: the
    same run gives the same file.
    """
    subject = recipe.subject
    metadata = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": recipe.name,
        "modelspec.resolution": f"{subject.resolution}x{subject.resolution}",
        PREDICTION_KEY: {"v_prediction": "v"}.get(prediction, prediction),
        TRIGGER_PHRASE_KEY: f"{subject.token} {subject.class_word}",
        "likeness.version": "1",
        "likeness.steps": str(steps),
        RECIPE_KEY: recipe.to_json(indent=None),
    }
    if losses:
        metadata["likeness.loss"] = f"{final_loss(losses):.6g}"
    if isinstance(recipe.method, LoRA):
        metadata |= {
            "modelspec.architecture": "stable-diffusion-v1/lora",
            "modelspec.implementation": "diffusers",
        }
        computed = precision or recipe.compute.precision
        metadata |= _kohya_metadata(recipe, recipe.method, steps, computed)
        if prediction == "v_prediction":
            metadata["ss_base_model_version"] = "sd_v1_v"
        # From this, A1111 and Forge show the words to prompt with.
        words = {f"{photos}_{subject.class_word}": {metadata[TRIGGER_PHRASE_KEY]: photos}}
        return metadata | {"ss_tag_frequency": json.dumps(words)}
    return metadata | {
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.implementation": "https://github.com/CompVis/stable-diffusion",
    }


def final_loss(losses: Sequence[float]) -> float:
    """Mean of the last tenth of the losses (at least one): single steps are mostly noise."""
    tail = losses[-max(1, len(losses) // 10) :]
    return sum(tail) / len(tail)


def _kohya_metadata(recipe: Recipe, method: LoRA, steps: int, precision: str) -> dict[str, str]:
    """The ``ss_`` keys of kohya's sd-scripts that other programs show or search by."""
    rate = recipe.optimizer.learning_rate
    text = recipe.text_encoder
    alpha = file_alpha(method)
    values: dict[str, Any] = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": method.rank,
        "ss_network_alpha": alpha,
        "ss_network_dropout": method.dropout or None,
        "ss_base_model_version": "sd_v1",
        "ss_new_sd_model_hash": recipe.base.digest,
        "ss_learning_rate": rate,
        "ss_unet_lr": rate,
        "ss_text_encoder_lr": (text.learning_rate or rate) if text.train else None,
        "ss_optimizer": recipe.optimizer.name,
        "ss_lr_scheduler": recipe.schedule.lr_scheduler,
        "ss_lr_warmup_steps": recipe.schedule.lr_warmup_steps,
        "ss_steps": steps,
        "ss_max_train_steps": recipe.schedule.steps,
        "ss_gradient_accumulation_steps": recipe.schedule.gradient_accumulation_steps,
        "ss_mixed_precision": {"fp32": "no"}.get(precision, precision),
        "ss_resolution": f"({recipe.subject.resolution}, {recipe.subject.resolution})",
        "ss_enable_bucket": recipe.subject.buckets,
        "ss_clip_skip": recipe.text_encoder.clip_skip,
        "ss_max_token_length": text.max_tokens if text.max_tokens > CHUNK_TOKENS else None,
        "ss_prior_loss_weight": recipe.prior.loss_weight if recipe.prior else None,
        "ss_min_snr_gamma": recipe.objective.min_snr_gamma,
        "ss_noise_offset": recipe.objective.noise_offset or None,
        "ss_seed": recipe.seed,
    }
    if method.targets == "all":
        values[NETWORK_ARGS_KEY] = json.dumps({"conv_dim": method.rank, "conv_alpha": alpha})
    return {key: str(value) for key, value in values.items() if value is not None}
