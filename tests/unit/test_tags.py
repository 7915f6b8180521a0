"""Tags in several orders."""

from itertools import permutations

import pytest
from likeness.trainers.errors import RecipeError
from likeness.trainers.recipe import Recipe
from likeness.trainers.tags import ORDERS, tag_orders


def orders(caption, photo=0, seed=0, **subject):
    begun = {"captions": True, "shuffle_tags": True, "prompt": "{caption}"}
    return tag_orders(Recipe().changed(subject={**begun, **subject}, seed=seed), caption, photo)


@pytest.mark.parametrize(
    ("caption", "subject", "begins", "free"),
    [
        ("sks man, hat, sea, dog", {}, "sks man, ", ["hat", "sea", "dog"]),
        ("photo, SKS man, hat, sea", {}, "photo, SKS man, ", ["hat", "sea"]),
        ("sks man, hat, sea, dog", {"keep_tags": 2}, "sks man, hat, ", ["sea", "dog"]),
        (
            "hat,sea ,, dog,",
            {"prompt": "a photo of {token} {class}, {caption}"},
            "a photo of sks man, ",
            ["hat", "sea", "dog"],
        ),
        ("hat, sea, dog", {"keep_tags": 0, "prompt": "{caption}"}, "", ["hat", "sea", "dog"]),
    ],
)
def test_tags_move_behind_those_that_stay(caption, subject, begins, free):
    found = orders(caption, **subject)
    possible = {begins + ", ".join(order) for order in permutations(free)}
    assert len(found) == len(set(found)) <= ORDERS
    assert {one for seed in range(40) for one in orders(caption, seed=seed, **subject)} == possible


def test_the_tag_with_the_token_keeps_its_place_between_others_that_move():
    prompt = "{caption}, {token} {class}, hd"
    found = orders("hat, sea, dog", prompt=prompt, keep_tags=0)
    assert all(one.split(", ")[3] == "sks man" for one in found)
    assert len({one.split(", ")[4] for one in found}) > 1


@pytest.mark.parametrize(
    ("caption", "subject"),
    [
        ("sks man,hat , sea", {"shuffle_tags": False}),
        ("sks man,hat", {}),
        ("sks man in a hat at sea", {}),
        (None, {"prompt": "{token} {class},hat", "keep_tags": 0}),
    ],
)
def test_a_prompt_of_which_nothing_moves_stays_as_it_is_written(caption, subject):
    (found,) = orders(caption, **subject)
    assert found == (caption or "sks man,hat")


def test_orders_follow_from_the_seed_and_the_photograph():
    many = "sks man, " + ", ".join("abcdefgh")
    assert len(orders(many)) == ORDERS
    assert orders(many) == orders(many)
    assert len({orders(many), orders(many, photo=1), orders(many, seed=1)}) == 3


@pytest.mark.parametrize(("photos", "most"), [(15, ORDERS), (512, 4), (5000, 2)])
def test_many_photographs_with_shuffled_tags_filled_the_gpu_with_embeddings(photos, most):
    subject = {"captions": True, "shuffle_tags": True, "prompt": "{caption}"}
    recipe = Recipe().changed(subject=subject)
    assert len(tag_orders(recipe, "sks man, " + ", ".join("abcdefgh"), 3, photos)) == most


def test_tags_are_shuffled_only_with_captions():
    with pytest.raises(RecipeError, match="shuffle_tags needs subject"):
        Recipe().changed(subject={"shuffle_tags": True})
    still = Recipe().changed(subject={"keep_tags": 3})
    assert still.canonical() == Recipe().canonical()
