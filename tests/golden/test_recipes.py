"""Recipes as each release wrote them: they load, and keep their digests.

A new field with a default would change every digest, so that finished runs were trained again:
name it in its part's `later`, and it is written only where it differs from its default.
"""

from pathlib import Path
from typing import ClassVar

import pytest
from likeness.trainers.presets import preset
from likeness.trainers.recipe import read_recipe
from likeness.trainers.recipe_parts import Part

FILES = sorted(Path(__file__).with_name("recipes").glob("*.json"))

DIGESTS = {
    "lora-r1-0.1.0": "6f1a014d9c2f402f",
    "lora-r4-0.1.0": "497669312622ff2a",
    "lora-r8-0.1.0": "38f0454c0104a8f5",
    "standard-0.1.0": "8b404030bcb2015f",
    "tiny-0.1.0": "ac19c3aa361e9c02",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_recipes_load_with_their_digest(path):
    assert read_recipe(path).digest().startswith(DIGESTS[path.stem])


@pytest.mark.parametrize("name", ["tiny", "standard", "lora-r1", "lora-r4", "lora-r8"])
def test_presets_are_those_of_this_release(name):
    stored = Path(__file__).with_name("recipes") / f"{name}-0.1.0.json"
    assert preset(name).to_json() == stored.read_text(encoding="utf-8").strip()


class OfLater(Part):
    """A part to which a later release added a field."""

    omit_if_default: ClassVar[frozenset[str]] = frozenset({"added"})

    rank: int = 4
    added: int = 0


def test_a_field_of_a_later_release_is_written_only_where_it_is_set():
    assert OfLater().model_dump() == {"rank": 4}
    assert OfLater(added=1).model_dump() == {"rank": 4, "added": 1}
    assert OfLater.model_validate({"rank": 4}) == OfLater()
