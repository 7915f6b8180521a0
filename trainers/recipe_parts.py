"""The parts of a recipe: frozen values, each field with its range and default."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal
from unicodedata import category, normalize

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)
from pydantic.functional_validators import AfterValidator

MAX_NAME_LENGTH, MAX_NAME_BYTES = 64, 128  # names are part of file names (255 bytes)
# Letters and marks without a glyph: different names would look the same.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(10))}


def check_name(name: str) -> str:
    """Returns `name` in the Unicode form NFC if it is safe as part of a file name on every system.

    Letters and digits of any script, ``-``, ``_``, ``.`` and inner spaces, 1 to 64 characters and
    at most 128 bytes in UTF-8, not a Windows device name, no leading or trailing dot. Raises
    ValueError otherwise.
    """
    name = normalize("NFC", name)
    first, last = name[:1], name[-1:]
    known = bool(name) and all(is_word_character(letter) or letter in " _.-" for letter in name)
    if not known or first in " _.-" or category(first)[0] == "M" or last in " .":
        raise ValueError(
            "a name consists of 1 to 64 letters or digits of any script, - _ . or inner spaces, "
            "starts with a letter or digit, and contains no path"
        )
    if len(name) > MAX_NAME_LENGTH or len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(
            f"a name has at most {MAX_NAME_LENGTH} characters and {MAX_NAME_BYTES} bytes in UTF-8"
        )
    forms = (name.lower(), normalize("NFKC", name).lower())  # some programs convert names so
    if ".." in name or any(form.split(".")[0].rstrip() in _RESERVED for form in forms):
        raise ValueError("this name is reserved; choose another")
    return name


def is_word_character(letter: str) -> bool:
    """Whether `letter` is a visible letter, digit, or mark on one."""
    kind = category(letter)
    return (kind[0] in "LM" or kind == "Nd") and not _INVISIBLE.match(letter)


def slugify(text: str, most: int = MAX_NAME_LENGTH) -> str:
    """The start of a text as part of a file name, with ``-`` for characters that cannot be in one.

    At most `most` characters, and twice as many bytes. "" if nothing is left.
    """
    letters = (
        one if is_word_character(one) or one in "_.-" else " " for one in normalize("NFC", text)
    )
    name = "-".join("".join(letters).split())[:most]
    while len(name.encode()) > 2 * most:
        name = name[:-1]
    return name.strip(".-")


def name_of_folder(folder: Path) -> str:
    """The last part of a folder's path as the name of a run: changed as little as it must be for
    file names, or "subject" if nothing is left.
    """
    last = os.path.basename(os.path.abspath(folder))
    for name in (last, slugify(last).strip(" _.-")):
        with suppress(ValueError):
            return check_name(name)
    return "subject"


def _check_token(text: str) -> str:
    if not text.strip() or not text.isprintable() or set(text) & set("{},"):
        raise ValueError(
            "a token is a word such as sks or ohwx: 1 to 64 characters, no braces, commas or line "
            "breaks"
        )
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


MAX_ENLARGE = 4.0

Name = Annotated[str, AfterValidator(check_name)]
NameOrEmpty = Annotated[str, AfterValidator(lambda name: name and check_name(name))]
Token = Annotated[str, Field(max_length=64), AfterValidator(_check_token)]
Prompt = Annotated[str, Field(max_length=4000), AfterValidator(_not_blank)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Rate = Annotated[float, Field(gt=0, le=10)]
Size = Annotated[int, Field(ge=64, le=2048, multiple_of=8)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Part(BaseModel):
    """A frozen part of a recipe; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Base(Part):
    """The base model: SD 1.x weights by digest (None: not bound to a file yet)."""

    digest: Digest | None = None
    prediction: Literal["auto", "epsilon", "v_prediction"] = "auto"


class Subject(Part):
    """The photographs and how they are presented to the model.

    `resolution` is in pixels; with `buckets` it is the square root of the pixel area and each
    photograph keeps its aspect ratio, otherwise all are cropped to squares. `crop` says what is
    kept: the middle, the upper part of an upright photograph (top), or the largest face. With
    `face`, a face smaller than `face_share` of the crop's height is cropped closer (0: never), but
    not below the training size. `holdout` photographs are reserved for the validation loss. A
    `mask` marks the subject: the image's own transparency (alpha), or a separate file beside it;
    outside it, the loss is weighted by `unmasked_weight`. A photograph smaller than its training
    size is enlarged, at most `enlarge` times, or rejected. With `shuffle_tags`, what
    commas separate in a prompt changes its order, except the first `keep_tags` and what contains
    the token.
    """

    digest: Digest | None = None
    token: Token = "sks"
    class_word: Prompt = "man"
    prompt: Prompt = "a photo of {token} {class} face"
    captions: bool = False
    resolution: Size = 512
    crop: Literal["center", "face", "top"] = "center"
    face_share: float = Field(0.0, ge=0, le=1)
    buckets: bool = False
    flip: bool = False
    holdout: int = Field(0, ge=0, le=1000)
    mask: Literal["none", "alpha", "file"] = "none"
    unmasked_weight: float = Field(0.1, ge=0, le=1)
    enlarge: float = Field(1.0, ge=1, le=MAX_ENLARGE)
    shuffle_tags: bool = False
    keep_tags: int = Field(1, ge=0, le=1000)

    @model_validator(mode="after")
    def _consistent(self) -> Subject:
        if self.shuffle_tags and not self.captions:
            raise ValueError("subject.shuffle_tags needs subject.captions")
        return self


class Prior(Part):
    """Prior preservation with class images, drawn by the base model or supplied by the user.

    `prompt` has one class prompt per line; image i shows prompt i modulo their number. `images` is
    the digest of the user's own set; None means `count` images are drawn. The source `teacher` uses
    no images: on the photographs, under the class prompts, the model learns what the base predicts.
    """

    prompt: Prompt = "a photo of {class}, random head angle, slight smile"
    negative: str = Field("", max_length=4000)
    count: int = Field(500, ge=1, le=100_000)
    loss_weight: float = Field(1.0, ge=0, le=100)
    images: Digest | None = None
    steps: int = Field(25, ge=1, le=1000)
    guidance: float = Field(7.5, ge=0, le=100)
    seed: Seed = 0
    source: Literal["images", "teacher"] = "images"

    @model_validator(mode="after")
    def _consistent(self) -> Prior:
        if self.source == "teacher" and self.images:
            raise ValueError("prior.source 'teacher' uses no images: set prior.images to null")
        if self.images and len(self.prompts()) > 1:
            raise ValueError(
                "prior.prompt has several lines, but which of them each image of your own set "
                "(prior.images) shows is unknown: give one line"
            )
        return self

    def prompts(self) -> tuple[str, ...]:
        """The class prompts as templates, without empty lines."""
        return tuple(line.strip() for line in self.prompt.splitlines() if line.strip())


class LoRA(Part):
    """Low-rank adapters. `alpha` None means equal to `rank`, so that ranks are comparable.

    `targets`: the attention projections (attention); also the feed-forward and projection layers
    (linear); or every linear and convolution layer (all). `start` is the digest of a LoRA file
    whose weights are the initial ones (None: new ones, which change nothing).
    """

    kind: Literal["lora"] = "lora"
    rank: int = Field(4, ge=1, le=512)
    alpha: float | None = Field(None, gt=0, le=4096)
    targets: Literal["attention", "linear", "all"] = "attention"
    dora: bool = False
    rslora: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    start: Digest | None = None


class DreamBooth(Part):
    """Full fine-tuning of the UNet (and of the text encoder, if `text_encoder.train`)."""

    kind: Literal["dreambooth"] = "dreambooth"


class TextEncoder(Part):
    """Training of the text encoder, and which of its layers is used.

    `learning_rate` None means the UNet's. After `last_step` the text encoder is frozen.
    `clip_skip` 1 uses its last layer, 2 the one before. Prompts are truncated after `max_tokens`;
    those of more than 75 are encoded in chunks of 75, as in ComfyUI.
    """

    train: bool = True
    learning_rate: Rate | None = None
    last_step: int | None = Field(None, ge=1)
    clip_skip: int = Field(1, ge=1, le=12)
    max_tokens: Literal[75, 150, 225] = 75


class Schedule(Part):
    """Optimizer steps, samples per step (`batch_size` x `gradient_accumulation_steps`, on each
    process), and the learning-rate schedule.
    """

    steps: int = Field(800, ge=1, le=1_000_000)
    batch_size: int = Field(1, ge=1, le=1024)
    gradient_accumulation_steps: int = Field(1, ge=1, le=1024)
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = "constant"
    lr_warmup_steps: int = Field(0, ge=0)
    lr_num_cycles: int = Field(1, ge=1, le=1000)
    lr_power: float = Field(1.0, gt=0, le=10)


class Optimizer(Part):
    """The optimizer; `max_grad_norm` None disables clipping of the global gradient norm."""

    name: Literal["adamw", "adamw8bit", "prodigy"] = "adamw8bit"
    learning_rate: Rate = 1e-4
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    epsilon: float = Field(1e-8, gt=0, le=1)
    weight_decay: float = Field(1e-2, ge=0, le=1)
    max_grad_norm: float | None = Field(1.0, gt=0)


class Objective(Part):
    """Loss weighting and noise. `min_snr_gamma`: arXiv:2303.09556, usually 5; None is off.

    Timesteps are drawn from `timestep_min` (the least noise) to below `timestep_max`.
    `caption_dropout` is the probability of training an image with the empty prompt, the
    unconditional half of classifier-free guidance (arXiv:2207.12598).
    """

    min_snr_gamma: float | None = Field(None, gt=0, le=100)
    noise_offset: float = Field(0.0, ge=0, le=1)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    timestep_min: int = Field(0, ge=0, le=999)
    timestep_max: int = Field(1000, ge=1, le=1000)
    caption_dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> Objective:
        if self.timestep_min >= self.timestep_max:
            raise ValueError("objective.timestep_min must be below objective.timestep_max")
        return self


class Compute(Part):
    """How steps are computed; trained weights are kept in fp32 whatever the precision.

    `memory` is a tier (`memory_tiers.TIERS`); auto takes the fastest that fits. `graphs`: CUDA
    graphs on a CUDA GPU. `compile`: torch.compile, which takes minutes before the first step.
    `tf32`: fp32 matrix products in TF32 on GPUs that support it.
    """

    precision: Literal["fp32", "fp16", "bf16"] = "fp16"
    gradient_checkpointing: bool = False
    attention: Literal["sdpa", "xformers"] = "sdpa"
    memory: Literal["auto", "full", "checkpointing", "8bit", "in_backward", "offload"] = "auto"
    graphs: bool = True
    compile: bool = False
    tf32: bool = False


class Previews(Part):
    """Images drawn during training: one for each prompt, every `every` steps (0: none)."""

    prompts: tuple[Prompt, ...] = Field((), max_length=16)
    negative: str = Field("", max_length=4000)
    every: int = Field(0, ge=0)
    width: Size = 512
    height: Size = 512
    steps: int = Field(20, ge=1, le=1000)
    guidance: float = Field(7.5, ge=0, le=100)
    seed: Seed = 0


class Saving(Part):
    """What is saved during training and kept after it.

    `every` steps between checkpoints (0: about every five minutes). The newest `keep` are kept;
    with 0, one during training and none of a finished run, which then cannot be continued.
    `adapters_every` steps between adapter files saved during training (0: only at the end).
    """

    every: int = Field(0, ge=0)
    keep: int = Field(1, ge=0, le=1000)
    dtype: Literal["fp16", "fp32"] = "fp16"
    adapters_every: int = Field(0, ge=0)
