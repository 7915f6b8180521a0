"""Where the subject is: transparency, or a file beside the photograph."""

import numpy as np
import pytest
import torch
from likeness.trainers.dataset import loss_weights
from likeness.trainers.errors import SubjectError
from likeness.trainers.masks import load_mask
from likeness.trainers.objective import sample_losses
from likeness.trainers.photo_manifest import load_subject_photos, write_manifest
from likeness.trainers.recipe import Recipe, Subject
from likeness.trainers.subject import read_subject
from PIL import Image


def spec(mask, **parts):
    return Subject(resolution=64, mask=mask, **parts)


def left_half(mode, size=(128, 128)):
    """White, or opaque, on the left; black, or clear, on the right."""
    image = Image.new(mode, size, (0, 0, 255, 255) if mode == "RGBA" else 255)
    width, height = size
    image.paste((0, 0, 255, 0) if mode == "RGBA" else 0, (width // 2, 0, width, height))
    return image


@pytest.fixture
def folder(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    return tmp_path


HALF = np.repeat([[1.0] * 4 + [0.0] * 4], 8, axis=0)


def test_a_file_beside_a_photograph_says_where_the_subject_is(folder):
    left_half("L").save(folder / "a-masklabel.png")
    (photo,) = read_subject(folder, spec("file")).photos
    assert np.array_equal(load_mask(photo), HALF)
    assert np.array_equal(load_mask(photo, flip=True), HALF[:, ::-1])


def test_a_mask_of_another_size_is_brought_to_the_photographs(folder):
    left_half("L", (32, 32)).save(folder / "a-masklabel.png")
    (photo,) = read_subject(folder, spec("file")).photos
    assert np.array_equal(load_mask(photo), HALF)


def test_a_mask_is_cropped_as_its_photograph(tmp_path):
    Image.new("RGB", (192, 64), "red").save(tmp_path / "a.png")
    mask = Image.new("L", (192, 64))
    mask.paste(255, (64, 0, 96, 64))  # the left half of the middle
    mask.save(tmp_path / "a-masklabel.png")
    (photo,) = read_subject(tmp_path, spec("file")).photos
    assert photo.box == (64, 0, 128, 64)
    assert np.array_equal(load_mask(photo), HALF)


def test_what_is_transparent_is_not_the_subject(tmp_path):
    left_half("RGBA").save(tmp_path / "a.png")
    (photo,) = read_subject(tmp_path, spec("alpha")).photos
    assert np.array_equal(load_mask(photo), HALF)


def test_without_a_mask_all_counts_and_it_is_said(folder):
    for kind, words in (("file", "no a-masklabel.png"), ("alpha", "nothing is transparent")):
        photos = read_subject(folder, spec(kind))
        assert load_mask(photos.photos[0]) is None
        assert words in photos.notes[0]


def test_a_cut_out_trained_without_a_mask_is_told_to_be_white(tmp_path):
    left_half("RGBA").save(tmp_path / "a.png")
    assert "trained as white" in read_subject(tmp_path, spec("none")).notes[0]


def test_a_mask_is_no_photograph(folder):
    left_half("L").save(folder / "a-masklabel.png")
    for kind in ("none", "alpha", "file"):
        assert [photo.path.name for photo in read_subject(folder, spec(kind)).photos] == ["a.jpg"]


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (Image.new("L", (128, 128)), "empty within the crop"),
        (Image.new("L", (128, 64), 255), "in aspect ratio from the image (128x128)"),
        (b"no image", "a-masklabel.png: it is not an image"),
    ],
)
def test_a_mask_that_cannot_be_used_refuses_its_photograph(folder, mask, reason):
    Image.new("RGB", (128, 128), "red").save(folder / "good.png")
    file = folder / "a-masklabel.png"
    file.write_bytes(mask) if isinstance(mask, bytes) else mask.save(file)
    photos = read_subject(folder, spec("file"))
    (refused,) = photos.refused
    assert refused.name == "a.jpg" and reason in refused.reason
    assert len(photos.photos) == 1


def test_another_mask_is_another_set_of_photographs(folder):
    digests = {read_subject(folder, spec("file")).digest}
    for value in (255, 254):
        Image.new("L", (128, 128), value).save(folder / "a-masklabel.png")
        digests.add(read_subject(folder, spec("file")).digest)
    assert len(digests) == 3


def test_a_mask_changed_since_is_an_error(folder):
    left_half("L").save(folder / "a-masklabel.png")
    (photo,) = read_subject(folder, spec("file")).photos
    Image.new("L", (128, 128), 255).save(folder / "a-masklabel.png")
    with pytest.raises(SubjectError, match="has changed since"):
        load_mask(photo)


def test_the_list_of_checked_photographs_keeps_masks(folder):
    left_half("L").save(folder / "a-masklabel.png")
    photos = read_subject(folder, spec("file"))
    write_manifest(folder / "photos.json", photos, None)
    recipe = Recipe().changed(subject=spec("file", digest=photos.digest))
    (photo,) = load_subject_photos(folder / "photos.json", recipe, folder / "elsewhere").photos
    assert photo == photos.photos[0]


def test_a_small_subject_counts_as_much_as_a_large_one():
    predicted, target = torch.randn(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
    mask = torch.ones(2, 1, 8, 8)
    assert torch.allclose(sample_losses(predicted, target, mask), sample_losses(predicted, target))
    mask[0, :, :, 2:] = 0.0  # a quarter of the image is left
    losses = sample_losses(predicted, target, mask)
    assert torch.allclose(losses[0], predicted[0, :, :, :2].pow(2).mean())
    assert torch.allclose(losses[1], predicted[1].pow(2).mean())


def test_in_a_run_with_masks_a_photograph_without_one_counts_whole(folder):
    (photo,) = read_subject(folder, spec("file")).photos
    recipe = Recipe().changed(subject={"mask": "file", "unmasked_weight": 0.2})
    assert torch.equal(loss_weights(recipe, photo), torch.ones(8, 8))
    assert loss_weights(Recipe(), photo) is None
    left_half("L").save(folder / "a-masklabel.png")
    (photo,) = read_subject(folder, spec("file")).photos
    expected = torch.tensor(0.2 + 0.8 * HALF, dtype=torch.float32)
    assert torch.allclose(loss_weights(recipe, photo), expected)
    assert torch.allclose(loss_weights(recipe, photo, flip=True), expected.flip(1))


def test_an_opaque_image_with_an_alpha_channel_is_no_cut_out(tmp_path):
    Image.new("RGBA", (128, 128), "blue").save(tmp_path / "a.png")
    assert not read_subject(tmp_path, spec("none")).notes
    photos = read_subject(tmp_path, spec("alpha"))
    assert load_mask(photos.photos[0]) is None and "nothing is transparent" in photos.notes[0]


def test_a_white_subject_on_nothing_is_a_mask_too(folder):
    mask = Image.new("RGBA", (128, 128), "white")
    mask.paste((255, 255, 255, 0), (64, 0, 128, 128))
    mask.save(folder / "a-masklabel.png")
    (photo,) = read_subject(folder, spec("file")).photos
    assert np.array_equal(load_mask(photo), HALF)


@pytest.mark.parametrize("name", ["a-masklabel.jpg", "a-masklabel (1).png", "A-MASKLABEL.PNG"])
def test_a_mask_that_is_not_read_is_no_photograph_either(folder, name):
    left_half("L").save(folder / name)
    photos = read_subject(folder, spec("file")).photos
    assert [photo.path.name for photo in photos] == ["a.jpg"]
