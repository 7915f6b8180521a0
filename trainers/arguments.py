"""Command-line options shared by several commands."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, get_args

from .errors import RecipeError
from .recipe import Recipe


def add_tokenizer(parser: argparse.ArgumentParser) -> None:
    """Adds ``--tokenizer``, a list of folders."""
    parser.add_argument(
        "--tokenizer", type=Path, action="append", default=[], metavar="FOLDER",
        help="folder with CLIP's vocab.json and merges.txt, if the base has none; repeatable",
    )  # fmt: skip


def add_device(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``, "auto" or "cpu"."""
    parser.add_argument(
        "--device", choices=("auto", "cpu"), default="auto",
        help="cpu: do not use a GPU (default: %(default)s)",
    )  # fmt: skip


def apply_overrides(recipe: Recipe, settings: list[str]) -> Recipe:
    """The recipe with `part.field=value` settings applied; values are JSON, else text.

    All at once, so that settings that are only valid together can come in any order. Raises
    RecipeError.
    """
    parts: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set takes FIELD=VALUE, e.g. schedule.steps=400, not {setting}.")
        value = _value(_field_type(name), text)
        part, dot, field = name.partition(".")
        if not dot:
            parts[part] = value
        elif isinstance(held := parts.get(part), dict):
            held[field] = value
        else:
            parts[part] = {field: value}
    return recipe.changed(**parts)


def _value(kind: Any, text: str) -> Any:
    """A setting's value: JSON, or the text itself, also of a number for a field that holds text."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if kind is str and not isinstance(value, str):
        return text
    if _holds_texts(kind) and not isinstance(value, list):
        return [value if isinstance(value, str) else text]
    return value


def _holds_texts(kind: Any) -> bool:
    """Whether a type is a tuple of any number of texts."""
    one, *rest = get_args(kind) or (None,)
    return rest == [...] and getattr(one, "__origin__", one) is str  # Annotated has an origin


def _field_type(name: str) -> Any:
    """The type of a recipe's field by its dotted name; None if unknown."""
    kind: Any = Recipe
    for part in name.split("."):
        models = [one for one in (kind, *get_args(kind)) if hasattr(one, "model_fields")]
        fields = [one.model_fields[part] for one in models if part in one.model_fields]
        if not fields:
            return None
        kind = fields[0].annotation
    return kind
