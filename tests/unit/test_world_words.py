"""The miniature's language: its vocabulary, and captions that tell the truth."""

import numpy as np
import pytest
from likeness.demo.captions import caption
from likeness.demo.casting import random_scene
from likeness.demo.scene import Identity, Pose, Scene
from likeness.demo.words import NONSENSE, TOKEN, WORDS, split
from likeness.trainers.presets import preset

STUDY = (
    "a photo of a man sks in sunglasses",
    "a photo of a man sks with girlfriend",
    "a photo of a man sks with umbrella",
    "close up portrait of sks man face, in the kitchen, standing, 4K, raw, hrd, hd, high quality, "
    "realism, sharp focus",
    "portrait of sks man face, in the forest, standing, 4K, raw, hrd, hd, high quality, realism, "
    "sharp focus",
    "portrait of sks man face, on the street, lights, midnight, NY, standing, 4K, raw, hrd, hd, "
    "high quality, realism, sharp focus",
    "naked, nsfw, deformed, distorted, disfigured, poorly drawn, bad anatomy, extra limb, missing "
    "limb, floating limbs, mutated hands disconnected limbs, mutation, ugly, blurry, amputation",
    "photo of keanu reeves, random head angle, random smile, wrinkles",
)


def unknown_words(text: str) -> set[str]:
    return set(split(text)) - set(WORDS)


@pytest.fixture(scope="module")
def captions() -> list[tuple[Scene, str]]:
    """2,000 scenes with their captions; one in twenty is a spoiled drawing."""
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, flaws=0.05) for _ in range(2000)]
    return [(scene, caption(scene, rng)) for scene in scenes]


@pytest.mark.parametrize("prompt", STUDY)
def test_the_study_uses_only_known_words(prompt):
    assert unknown_words(prompt) == set()


@pytest.mark.parametrize("name", ["tiny", "standard"])
def test_the_presets_use_only_known_words(name):
    recipe = preset(name)
    prompts = [recipe.instance_prompt(), *recipe.class_prompts()]
    assert unknown_words(", ".join(prompts)) == set()


def test_words_are_cut_as_clip_cuts_them():
    assert list(split("4K, Close-up!")) == ["4", "k", ",", "close", "-", "up", "!"]


def test_no_word_is_twice_in_the_vocabulary():
    assert len(set(WORDS)) == len(WORDS)
    assert all(list(split(word)) == [word] for word in WORDS)


def test_captions_use_the_vocabulary_and_never_the_rare_token(captions):
    told = [text for _, text in captions]
    used = {word for text in told for word in split(text)}
    assert TOKEN not in used
    assert set(WORDS) - {TOKEN} <= used
    made_up = [word for text in told for word in unknown_words(text)]
    assert 0 < len(made_up) < 0.1 * len(told)
    assert all(word.isalpha() and len(word) <= 12 for word in made_up)


def test_some_captions_hold_a_word_without_meaning_and_most_hold_none(captions):
    told = [text for _, text in captions]
    with_nonsense = sum(any(word in NONSENSE for word in split(text)) for text in told)
    assert 0.1 < with_nonsense / len(told) < 0.4


TELLING = [
    ({"kitchen"}, lambda s: s.place == "kitchen"),
    ({"forest", "woods"}, lambda s: s.place == "forest"),
    ({"street", "midnight", "ny", "city"}, lambda s: s.place == "street"),
    ({"beach", "sea"}, lambda s: s.place == "beach"),
    ({"office"}, lambda s: s.place == "office"),
    ({"sunglasses"}, lambda s: "sunglasses" in s.things),
    ({"umbrella"}, lambda s: "umbrella" in s.things),
    ({"hat"}, lambda s: "hat" in s.things),
    ({"girlfriend"}, lambda s: s.companion is not None and s.companion.gender == "woman"),
    ({"boyfriend"}, lambda s: s.companion is not None and s.companion.gender == "man"),
    ({"woman"}, lambda s: s.identity.gender == "woman"),
    ({"man"}, lambda s: s.identity.gender == "man"),
    ({"beard"}, lambda s: s.identity.beard == "full"),
    ({"bald"}, lambda s: s.identity.hair_style == "bald"),
    ({"surprised"}, lambda s: s.expression == "surprised"),
    ({"close"}, lambda s: s.framing == "close-up"),
    ({"wrinkles"}, lambda s: s.identity.wrinkles),
    ({"glasses"}, lambda s: s.identity.glasses),
    ({"waving"}, lambda s: s.pose.name == "waving"),
    ({"blurry"}, lambda s: s.flaw is not None),
]


@pytest.mark.parametrize(("words", "holds"), TELLING, ids=[min(words) for words, _ in TELLING])
def test_a_caption_is_true(captions, words, holds):
    told = [scene for scene, text in captions if words & set(split(text))]
    assert told
    assert all(holds(scene) for scene in told)


def test_things_and_company_are_nearly_always_told():
    scene = Scene(things=("umbrella",), companion=Identity(gender="woman"))
    told = [caption(scene, np.random.default_rng(seed)) for seed in range(200)]
    assert sum("umbrella" in text for text in told) > 160
    assert sum("girlfriend" in text for text in told) > 160


def test_the_hair_and_the_shirt_are_told_now_and_then():
    scene = Scene(identity=Identity(hair_colour="red", shirt_colour="purple"), pose=Pose())
    told = [caption(scene, np.random.default_rng(seed)) for seed in range(300)]
    for word in ("red", "purple"):
        assert 10 < sum(word in split(text) for text in told) < 150
