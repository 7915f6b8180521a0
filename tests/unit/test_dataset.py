"""What decides an encoded image and a set of class images."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from likeness.trainers import dataset
from likeness.trainers.recipe import Recipe
from likeness.trainers.subject import Photo, PhotoSet

PHOTO = Photo(Path("a.png"), "d" * 64, 128, 96, (16, 0, 112, 96), (64, 64))


@pytest.mark.parametrize(
    "other", [{"digest": "e" * 64}, {"box": (0, 0, 96, 96)}, {"size": (64, 48)}]
)
def test_a_photograph_that_is_cropped_in_another_way_is_encoded_anew(other):
    key = dataset.PhotoView(PHOTO, False).key
    assert dataset.PhotoView(replace(PHOTO, **other), False).key != key
    assert dataset.PhotoView(PHOTO, True).key != key


def test_photographs_are_learned_from_both_sides_and_those_held_out_are_as_they_are(monkeypatch):
    photos = PhotoSet(tuple(replace(PHOTO, digest=digit * 64) for digit in "abc"), (), (), "")
    monkeypatch.setattr(dataset, "load_subject_photos", lambda *_: photos)
    monkeypatch.setattr(dataset, "encode_images", lambda vae, views, **_: views)
    alone = SimpleNamespace(device="cpu", process_index=0, num_processes=1, wait_for_everyone=len)
    run = SimpleNamespace(
        recipe=Recipe(prior=None, subject={"flip": True, "holdout": 1}), accelerator=alone,
        folder=SimpleNamespace(photos_file=None), note=print,
        places=SimpleNamespace(photos=None, cache=None, class_images=None),
    )  # fmt: skip
    made = dataset.build_dataset(run, SimpleNamespace(vae=None))
    sides = [[[view.flip for view in one.views] for one in part]
             for part in (made.photos, made.held_out)]  # fmt: skip
    assert sides == [[[False, True]] * 2, [[False]]]


def test_tags_are_trained_in_several_orders_and_validated_as_they_are_written(monkeypatch):
    captions = [f"sks man, {digit}, hat, sea" for digit in "abc"]
    photos = PhotoSet(
        tuple(replace(PHOTO, digest=text[9] * 64, caption=text) for text in captions), (), (), ""
    )
    monkeypatch.setattr(dataset, "load_subject_photos", lambda *_: photos)
    monkeypatch.setattr(dataset, "encode_images", lambda vae, views, **_: views)
    alone = SimpleNamespace(device="cpu", process_index=0, num_processes=1, wait_for_everyone=len)
    subject = {"captions": True, "shuffle_tags": True, "holdout": 1}
    run = SimpleNamespace(
        recipe=Recipe(prior=None, subject=subject), accelerator=alone,
        folder=SimpleNamespace(photos_file=None), note=print,
        places=SimpleNamespace(photos=None, cache=None, class_images=None),
    )  # fmt: skip
    made = dataset.build_dataset(run, SimpleNamespace(vae=None))
    for item in made.photos:
        texts = {made.prompts[number] for number in item.prompts}
        assert 2 <= len(texts) <= 6
        assert len({tuple(sorted(text.split(", "))) for text in texts}) == 1
    ((held_out,),) = (item.prompts for item in made.held_out)
    assert made.prompts[held_out] in captions
