"""Class images by what they show: the names of their sets."""

from types import SimpleNamespace

import pytest
from likeness.trainers import class_image_sets
from likeness.trainers.class_image_sets import class_images_folder, prior_folder, prior_key
from likeness.trainers.recipe import Prior, Recipe

KEY = {"prior": Prior(), "prompts": ["a photo of man"], "base_digest": "b", "size": 512}


@pytest.mark.parametrize(
    "change",
    [
        {"prompts": ["a photo of dog"]},
        {"prompts": ["a photo of man", "a photo of dog"]},
        {"base_digest": "c"},
        {"size": 256},
        {"prediction": "v_prediction"},
        {"clip_skip": 2},
        {"max_tokens": 150},
        {"prior": Prior(negative="blurry")},
        {"prior": Prior(steps=30)},
        {"prior": Prior(guidance=5)},
        {"prior": Prior(seed=1)},
    ],
)
def test_what_changes_the_images_changes_the_key(change):
    assert prior_key(**{**KEY, **change}) != prior_key(**KEY)


def test_number_and_weight_do_not_change_the_key():
    other = Prior(count=7, loss_weight=0.1)
    assert prior_key(**{**KEY, "prior": other}) == prior_key(**KEY)
    assert len(prior_key(**KEY)) == 64


def test_another_way_of_drawing_has_other_keys(monkeypatch):
    before = prior_key(**KEY)
    monkeypatch.setattr(class_image_sets, "VERSION", class_image_sets.VERSION + 1)
    assert prior_key(**KEY) != before


def test_sets_lie_in_the_cache_by_key(tmp_path):
    key = prior_key(**KEY)
    assert prior_folder(tmp_path, key) == tmp_path / "class_images" / key[:16]


@pytest.mark.parametrize(
    "changes",
    [
        {"text_encoder": {"clip_skip": 2}},
        {"base": {"digest": "b" * 64}},
        {"base": {"prediction": "v_prediction"}},
        {"subject": {"resolution": 256}},
        {"subject": {"class_word": "dog"}},
    ],
)
def test_class_images_that_another_recipe_draws_lie_elsewhere(changes, tmp_path):
    places, recipe = SimpleNamespace(cache=tmp_path), Recipe()
    other = recipe.changed(**changes)
    own = class_images_folder(recipe, places, recipe.prior)
    assert class_images_folder(other, places, other.prior) != own
