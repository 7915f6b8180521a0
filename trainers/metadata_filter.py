"""Strips the user's own words from an adapter's metadata, for sharing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from .adapter import RECIPE_KEY, STRIPPED_KEY
from .recipe import recipe_from_json

_PROMPT_FIELDS = {
    "subject": ("token", "class_word", "prompt"),
    "prior": ("prompt", "negative"),
    "previews": ("prompts", "negative"),
}


# Numbers and choices only: no comment, description, trigger phrase, folder or tag.
_ALLOWED_KEYS = re.compile(
    r"format|likeness\..+|sshs_model_hash"
    r"|modelspec\.(sai_model_spec|architecture|implementation|title|resolution|prediction_type"
    r"|timestep_range|encoder_layer|hash_sha256|date)"
    r"|ss_(network_(module|dim|alpha|dropout|args)|base_model_version|v2|output_name|optimizer"
    r"|learning_rate|unet_lr|text_encoder_lr|lr_(scheduler|warmup_steps)|steps|epoch|seed"
    r"|max_(train_steps|token_length|grad_norm)|num_(epochs|train_images|reg_images)"
    r"|num_batches_per_epoch|gradient_(accumulation_steps|checkpointing)|mixed_precision"
    r"|full_fp16|resolution|enable_bucket|(min|max)_bucket_reso|bucket_no_upscale|clip_skip"
    r"|prior_loss_weight|min_snr_gamma|noise_offset|cache_latents|random_crop|flip_aug"
    r"|caption_dropout_rate|scale_weight_norms|zero_terminal_snr|sd_model_hash"
    r"|new_sd_model_hash|total_batch_size|batch_size_per_device)"
)


def strip_prompts(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata without the words that a user wrote as prompts, for sharing.

    The rest of the recipe moves to STRIPPED_KEY: readable, but not trainable. Of other programs'
    metadata, which may hold captions, only fields known to be technical are kept.
    """
    kept = {key: text for key, text in metadata.items() if _ALLOWED_KEYS.fullmatch(key)}
    text = kept.pop(RECIPE_KEY, None)
    if text is not None:
        data = recipe_from_json(text).model_dump(mode="json")
        for part, fields in _PROMPT_FIELDS.items():
            for field in fields if data[part] else ():
                del data[part][field]
        kept[STRIPPED_KEY] = json.dumps(data, sort_keys=True)
    return kept
