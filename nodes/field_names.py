"""Recipe fields in messages, by the names that their widgets have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from ..trainers.errors import LikenessError
from ..trainers.recipe import LoRA, Prior, Subject
from .option_list import all_options

_OF_TRAIN_NODES = {
    "method.start": "start_from",
    "schedule.steps": "steps",
    "schedule.batch_size": "batch_size",
    "optimizer.name": "optimizer",
    "optimizer.learning_rate": "learning_rate",
    "text_encoder.train": "train_text_encoder",
    "compute.precision": "precision",
    "previews.every": "preview_every",
}
# Widgets with the fields' names, some of which several nodes have.
_NAMED_ALIKE = (
    ("subject", Subject, "Subject's "),
    ("prior", Prior, "Class Images' "),
    ("method", LoRA, ""),
)
_NOT_WIDGETS = {"subject.digest", "prior.images", "method.kind"}
# Not in a command; lora and dreambooth are put there by pydantic.
_FIELD = re.compile(r"(?<!--set )\b([a-z_]+)\.(?:lora\.|dreambooth\.)?([a-z_]\w*)")


@cache
def _widgets() -> dict[str, str]:
    """The widget of each recipe field that has one, by the field's dotted name."""
    alike = {
        f"{part}.{field}": f"{owner}{field}"
        for part, model, owner in _NAMED_ALIKE
        for field in model.model_fields
        if f"{part}.{field}" not in _NOT_WIDGETS
    }
    options = {f"{option.part}.{option.field}": option.widget.id for option in all_options()}
    return {**alike, **options, **_OF_TRAIN_NODES}


def name_widgets(text: str) -> str:
    """`text` with recipe fields such as ``previews.width`` named as their widgets are."""
    return _FIELD.sub(lambda found: _widgets().get(".".join(found.groups()), found[0]), text)


@contextmanager
def errors_name_widgets() -> Iterator[None]:
    """Errors meant for the user name widgets instead of recipe fields."""
    try:
        yield
    except LikenessError as error:
        error.args = (name_widgets(str(error)), *error.args[1:])
        raise
