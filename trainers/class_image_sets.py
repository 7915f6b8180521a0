"""Which class images a recipe's base draws, and the cache folder that holds them. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .places import Places
from .recipe import Prior, Recipe
from .tokenizer import CHUNK_TOKENS

if TYPE_CHECKING:
    from .sampler import Scheduler, Solver

# DPM-Solver++(2M) with Karras' sigmas: about 25 steps match 50 of older solvers (arXiv:2211.01095,
# section 7), which halves the longest wait before a first run.
SOLVER: Solver = "dpmpp_2m"
SCHEDULER: Scheduler = "karras"

# Increment with any change that alters what an image shows (noise, sampler maths, decoding), lest
# sets mix two kinds: all images are then drawn again, in new folders. Not for rounding.
VERSION = 1


def class_images_folder(recipe: Recipe, places: Places, prior: Prior) -> Path:
    """Cache folder of the class images that the base draws for a bound recipe."""
    key = prior_key(
        prior,
        recipe.class_prompts(),
        recipe.base.digest or "",
        recipe.subject.resolution,
        prediction=recipe.base.prediction,
        clip_skip=recipe.text_encoder.clip_skip,
        max_tokens=recipe.text_encoder.max_tokens,
    )
    return prior_folder(places.cache, key)


def prior_key(
    prior: Prior,
    prompts: Sequence[str],
    base_digest: str,
    size: int,
    *,
    prediction: str = "auto",
    clip_skip: int = 1,
    max_tokens: int = CHUNK_TOKENS,
) -> str:
    """SHA-256, 64 hex digits, of everything that determines the images.

    `prompts` are filled in, `size` is the side in pixels, `prediction` and `max_tokens` are the
    recipe's.
    `prior.count` and `prior.loss_weight` are not part of it.
    """
    drawn = description(prior, prompts, size)
    longer = [max_tokens] if max_tokens > CHUNK_TOKENS else []
    text = json.dumps([VERSION, base_digest, prediction, clip_skip, drawn, *longer])
    return hashlib.sha256(text.encode()).hexdigest()


def prior_folder(cache: Path, key: str) -> Path:
    """The folder of the set with this key: ``class_images/<16 digits>/`` in `cache`."""
    return Path(cache) / "class_images" / key[:16]


def description(prior: Prior, prompts: Sequence[str], size: int) -> dict[str, Any]:
    """What is drawn and how: the content of `prompt.json` beside the images."""
    return {
        "prompt": "\n".join(prompts),
        "negative": prior.negative,
        "size": size,
        "sampler": f"{SOLVER} {SCHEDULER}",
        "steps": prior.steps,
        "guidance": prior.guidance,
        "seed": prior.seed,
    }
