"""Command-line options shared by several commands."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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

    All at once, so that settings that are only valid together can come in any order.
    """
    parts: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set takes FIELD=VALUE, e.g. schedule.steps=400, not {setting}.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        part, dot, field = name.partition(".")
        if not dot:
            parts[part] = value
        elif isinstance(held := parts.get(part), dict):
            held[field] = value
        else:
            parts[part] = {field: value}
    return recipe.changed(**parts)
