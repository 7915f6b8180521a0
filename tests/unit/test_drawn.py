import numpy as np
import pytest

pytest.importorskip("aggdraw", reason="draws the world")

from likeness.demo import quality, weights
from likeness.demo.drawn import measure_drawings, scenes_for
from likeness.demo.judge import load_judge, reference_for
from likeness.demo.measures import Canvas
from likeness.demo.subject import subject_scenes
from likeness.demo.world import draw
from likeness.trainers.base_model import load_base

WHO = quality.person(5000)


@pytest.mark.parametrize(
    ("prompt", "things", "accompanied", "places", "framings"),
    [
        ("a photo of a man sks in sunglasses", ("sunglasses",), False, None, None),
        ("a photo of a man sks with girlfriend", (), True, None, None),
        ("close up portrait of sks man face, in the kitchen, standing", (), False, {"kitchen"},
         {"close-up"}),
    ],
)  # fmt: skip
def test_scenes_show_what_is_asked_and_nothing_more(
    prompt, things, accompanied, places, framings
):  # fmt: skip
    for scene in scenes_for(prompt, WHO, 5, np.random.default_rng(0)):
        assert scene.identity == WHO
        assert scene.things == things
        assert (scene.companion is not None) == accompanied
        assert places is None or scene.place in places
        assert framings is None or scene.framing in framings


def test_drawings_are_the_person_they_show_and_nobody_else():
    judge = load_judge(weights.find(weights.JUDGE))
    vae = load_base(weights.find(weights.CHECKPOINT)).vae
    photos = np.stack([draw(scene, 64, 64) for scene in subject_scenes(WHO, 5000, 8)])
    subject = reference_for(judge, WHO, photos, count=8)
    own, _ = measure_drawings(WHO, vae, judge, subject, draws=1, seed=0, canvas=Canvas(64, 64))
    assert own.identity > 0.8 and own.drift < 0.5
    assert own.prompt > 0.9 and own.joints_controlled < 0.05
    assert np.isnan(own.joints)
