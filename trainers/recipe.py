"""A complete run as one frozen value, read from and written to JSON.

A recipe names its base model and photographs by content digest. Their paths are kept separately
(`places.Places`), so a recipe can be shared as it is. Its parts are defined in `recipe_parts` and
re-exported here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator

from .errors import RecipeError
from .recipe_parts import (
    Base,
    Compute,
    Digest,
    DreamBooth,
    LoRA,
    Name,
    NameOrEmpty,
    Objective,
    Optimizer,
    Part,
    Previews,
    Prior,
    Prompt,
    Rate,
    Saving,
    Schedule,
    Seed,
    Size,
    Subject,
    TextEncoder,
    check_name,
)

__all__ = [
    "Base",
    "Compute",
    "Digest",
    "DreamBooth",
    "LoRA",
    "Name",
    "Objective",
    "Optimizer",
    "Part",
    "Previews",
    "Prior",
    "Prompt",
    "Rate",
    "Recipe",
    "Saving",
    "Schedule",
    "Seed",
    "Size",
    "Subject",
    "TextEncoder",
    "check_name",
    "format_validation_error",
    "read_recipe",
    "recipe_from_data",
    "recipe_from_json",
    "without_caption",
]


CAPTION_PLACEHOLDER = "{caption}"  # in a subject's prompt


def without_caption(template: str) -> str:
    """A subject's prompt without the caption placeholder and the comma before it; token and class
    if nothing else is left.
    """
    if CAPTION_PLACEHOLDER not in template:
        return template
    parts = [part.strip() for part in template.replace(CAPTION_PLACEHOLDER, "").split(",")]
    return ", ".join(filter(None, parts)) or "{token} {class}"


class Recipe(Part):
    """Everything that determines what is learned.

    `name` "" stands for the name of the photographs' folder, which a bound recipe has. `attempt`
    repeats the same training; `continues` is the digest of a finished run whose last
    checkpoint is the starting point; `validate_every` steps between validation losses (0: never).
    """

    version: Literal[1] = 1
    name: NameOrEmpty = ""
    base: Base = Base()
    subject: Subject = Subject()
    prior: Prior | None = Prior()
    method: LoRA | DreamBooth = Field(LoRA(), discriminator="kind")
    text_encoder: TextEncoder = TextEncoder()
    schedule: Schedule = Schedule()
    optimizer: Optimizer = Optimizer()
    objective: Objective = Objective()
    compute: Compute = Compute()
    previews: Previews = Previews()
    saving: Saving = Saving()
    validate_every: int = Field(0, ge=0)
    seed: Seed = 0
    attempt: int = Field(0, ge=0)
    continues: Digest | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.validate_every and not self.subject.holdout:
            raise ValueError("validate_every needs a subject.holdout of at least 1 photograph")
        if self.schedule.lr_warmup_steps and self.schedule.lr_scheduler == "constant":
            raise ValueError(
                "schedule.lr_warmup_steps has no effect with schedule.lr_scheduler 'constant': "
                "choose 'constant_with_warmup', or set lr_warmup_steps to 0"
            )
        if self.text_encoder.last_step and not self.text_encoder.train:
            raise ValueError("text_encoder.last_step needs text_encoder.train")
        if self.optimizer.name == "prodigy" and self.text_encoder.learning_rate is not None:
            raise ValueError(
                "optimizer.name 'prodigy' estimates one learning rate for all weights: set "
                "text_encoder.learning_rate to null"
            )
        if self.continues and self.start:
            raise ValueError(
                "continues takes the whole state of an earlier run, and method.start only the "
                "weights of a file: set one of them to null"
            )
        others = [*self.previews.prompts, *(self.prior.prompts() if self.prior else ())]
        if any(CAPTION_PLACEHOLDER in prompt for prompt in others):
            raise ValueError("{caption} is allowed only in subject.prompt")
        if self.previews.every and not self.previews.prompts:
            raise ValueError("previews.every needs at least one prompt in previews.prompts")
        return self

    @property
    def start(self) -> str | None:
        """Digest of the LoRA file that the training starts from, or None."""
        return self.method.start if isinstance(self.method, LoRA) else None

    def without_start(self) -> Recipe:
        """The recipe with new initial weights."""
        return self.changed(method={"start": None}) if self.start else self

    def instance_prompt(self, caption: str | None = None) -> str:
        """The prompt of a photograph: its caption, or the subject's prompt.

        If that contains ``{caption}``, the caption replaces it; without a caption it is removed.
        """
        template = self.subject.prompt
        if CAPTION_PLACEHOLDER not in template:
            return self.fill(caption or template)
        if caption:
            return self.fill(template.replace(CAPTION_PLACEHOLDER, caption))
        return self.fill(without_caption(template))

    def class_prompts(self) -> tuple[str, ...]:
        """The prompts that class images use in turn; none without prior preservation."""
        return tuple(map(self.fill, self.prior.prompts())) if self.prior else ()

    def fill(self, template: str) -> str:
        """`template` with ``{token}`` and ``{class}`` filled in; other braces are kept."""
        return template.replace("{token}", self.subject.token).replace(
            "{class}", self.subject.class_word
        )

    def digest(self) -> str:
        """SHA-256 of the canonical JSON, 64 hex digits: the identity of a bound run."""
        return hashlib.sha256(self.to_json(indent=None).encode()).hexdigest()

    def canonical(self) -> Recipe:
        """The recipe without the fields that do not affect training; equal ones train alike.

        Resets the name, previews, validation, the checkpoint interval and count, and fields that
        have no effect beside the others (`_unused_defaults`).
        """
        return self.changed(
            name=Recipe.model_fields["name"].default,
            previews=Previews(),
            saving={"every": 0, "keep": 1},
            validate_every=0,
            **self._unused_defaults(),
        )

    def _unused_defaults(self) -> dict[str, dict[str, Any]]:
        """The defaults of the fields that have no effect in this recipe, by part and name."""
        prior, scheduler = self.prior, self.schedule.lr_scheduler
        drawn = prior is None or (prior.source == "images" and prior.images is None)
        drawing = ("count", "negative", "steps", "guidance", "seed")
        idle = {
            ("subject", "unmasked_weight"): self.subject.mask == "none",
            ("subject", "keep_tags"): not self.subject.shuffle_tags,
            ("subject", "face_share"): self.subject.crop != "face",
            ("schedule", "lr_num_cycles"): scheduler != "cosine_with_restarts",
            ("schedule", "lr_power"): scheduler != "polynomial",
            ("text_encoder", "learning_rate"): not self.text_encoder.train,
            ("compute", "tf32"): self.compute.precision != "fp32",
            **{("prior", name): not drawn for name in drawing},
        }
        parts: dict[str, dict[str, Any]] = {}
        for (part, name), is_idle in idle.items():
            if is_idle:
                default = type(getattr(self, part)).model_fields[name].default
                parts.setdefault(part, {})[name] = default
        return parts

    def label(self) -> str:
        """A short name of the method: ``lora-r4``, ``dora-r4`` or ``dreambooth-512``."""
        if isinstance(self.method, DreamBooth):
            return f"dreambooth-{self.subject.resolution}"
        return f"{'dora' if self.method.dora else 'lora'}-r{self.method.rank}"

    def run_name(self) -> str:
        """The name of a bound recipe's run folder, ``<name>-<label>-<8 digits of the digest>``."""
        return f"{self.name}-{self.label()}-{self.digest()[:8]}"

    def to_json(self, indent: int | None = 2) -> str:
        """Canonical JSON with sorted keys."""
        return json.dumps(
            self.model_dump(mode="json"), indent=indent, sort_keys=True, ensure_ascii=False
        )

    def changed(self, /, **parts: Any) -> Recipe:
        """A copy with fields replaced and validated again: ``changed(schedule={"steps": 20})``.

        A dict is merged into the part of that name, or replaces a method of another kind.
        Raises RecipeError.
        """
        data = self.model_dump(mode="json")
        for key, value in parts.items():
            old = data.get(key)
            if isinstance(value, Part):
                value, old = value.model_dump(mode="json"), None
            if isinstance(old, dict) and isinstance(value, dict):
                same = value.get("kind", old.get("kind")) == old.get("kind")
                value = {**old, **value} if same else value
            data[key] = value
        return recipe_from_data(data)


def recipe_from_data(data: Any) -> Recipe:
    """Recipe from parsed JSON. Raises RecipeError, which names each invalid field."""
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise RecipeError(format_validation_error(error, "recipe", Recipe)) from None


def recipe_from_json(text: str | bytes) -> Recipe:
    """Recipe from JSON text, or from a file's bytes in UTF-8 or UTF-16, as PowerShell writes them.

    Raises RecipeError.
    """
    try:
        return recipe_from_data(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"The recipe is not valid JSON: {error}") from None


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe from a JSON file. Raises RecipeError."""
    try:
        return recipe_from_json(Path(path).read_bytes())
    except OSError as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error}") from None


def format_validation_error(
    error: ValidationError, what: str, model: type[BaseModel] | None = None
) -> str:
    """One line for each invalid field: its dotted name, what is wrong, and what was given.

    With the `model` that was validated, an unknown field's line lists the known ones.
    """
    lines = [f"The {what} has {error.error_count()} problem(s):"]
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"]) or what
        given = repr(item.get("input"))
        shown = f" (given: {given[:80]})" if item["loc"] and len(given) < 400 else ""
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = ", ".join(_field_names(model, item["loc"][:-1])) if model else ""
            message = "there is no such field" + (f", only {known}" if known else "")
        lines.append(f"- {where}: {message}{shown}")
    return "\n".join(lines)


def _field_names(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """The fields of the part of a model at the `path` of an error; [] if there is no such part."""
    kinds = [model]
    for step in path:
        nested = [kind.model_fields[str(step)] for kind in kinds if step in kind.model_fields]
        if nested:
            kinds = [kind for field in nested for kind in _models(field.annotation)]
        else:  # of a union, the error names the kind
            kinds = [one for one in kinds if _default_of(one, "kind") == step] or kinds
    return list(dict.fromkeys(name for kind in kinds for name in kind.model_fields))


def _models(annotation: Any) -> list[type[BaseModel]]:
    if parts := get_args(annotation):  # first: Python 3.10 takes list[int] for a class
        return [model for part in parts for model in _models(part)]
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_model else []


def _default_of(model: type[BaseModel], name: str) -> Any:
    return model.model_fields[name].default if name in model.model_fields else None
