"""Recipes as each release wrote them: they load, and keep their digests.

A new field changes every digest, so that finished runs are trained again. That is so until the
first release, with which these files are written anew.
"""

from pathlib import Path

import pytest
from likeness.trainers.presets import preset
from likeness.trainers.recipe import read_recipe

FILES = sorted(Path(__file__).with_name("recipes").glob("*.json"))

DIGESTS = {
    "lora-r1-0.1.0": "47ef44be171d681e",
    "lora-r4-0.1.0": "423f2e5fe09bc76f",
    "lora-r8-0.1.0": "5dd303891e480454",
    "standard-0.1.0": "99a782c47a1cc46c",
    "tiny-0.1.0": "7765028c39f01ed0",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_stored_recipes_load_with_their_digest(path):
    assert read_recipe(path).digest().startswith(DIGESTS[path.stem])


@pytest.mark.parametrize("name", ["tiny", "standard", "lora-r1", "lora-r4", "lora-r8"])
def test_presets_are_those_of_this_release(name):
    stored = Path(__file__).with_name("recipes") / f"{name}-0.1.0.json"
    assert preset(name).to_json() == stored.read_text(encoding="utf-8").strip()
