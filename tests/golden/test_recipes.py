"""Recipes as each release wrote them: they load, and keep their digests.

A new field with a default would change every digest, so that finished runs were trained again:
name it in its part's `later`, and it is written only where it differs from its default.
"""

from pathlib import Path

import pytest
from likeness.trainers.presets import preset
from likeness.trainers.recipe import read_recipe, recipe_from_json

FILES = sorted(Path(__file__).with_name("recipes").glob("*.json"))

DIGESTS = {
    "lora-r1-0.1.0": "6ec954da9930480f",
    "lora-r4-0.1.0": "cd656640245642fe",
    "lora-r8-0.1.0": "546236fc0fceb56d",
    "standard-0.1.0": "a085974485707dfb",
    "tiny-0.1.0": "3e1f1eedd5a4e354",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_recipes_load_with_their_digest(path):
    assert read_recipe(path).digest().startswith(DIGESTS[path.stem])


@pytest.mark.parametrize("name", ["tiny", "standard", "lora-r1", "lora-r4", "lora-r8"])
def test_presets_are_those_of_this_release(name):
    stored = Path(__file__).with_name("recipes") / f"{name}-0.1.0.json"
    assert preset(name).to_json() == stored.read_text(encoding="utf-8").strip()


def test_a_field_of_a_later_release_is_written_only_where_it_is_set():
    plain = preset("lora-r4")
    assert "memory" not in plain.to_json()
    chosen = plain.changed(compute={"memory": "8bit"})
    assert chosen.digest() != plain.digest()
    assert recipe_from_json(chosen.to_json()) == chosen
    assert chosen.changed(compute=plain.compute) == plain
