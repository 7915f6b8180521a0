from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from likeness.trainers.photo_checks import (
    BLUR_THRESHOLD,
    difference_hash,
    find_near_duplicates,
    sharpness,
)
from likeness.trainers.recipe import Subject
from likeness.trainers.subject import load_pixels, read_subject
from PIL import Image, ImageEnhance, ImageFilter

ROOT = Path(__file__).resolve().parents[2]


def scene(seed):
    """An image (256, 256, 3) of 60 overlapping rectangles."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((256, 256, 3), np.uint8)
    for _ in range(60):
        (x, y), (w, h) = random.integers(0, 240, 2), random.integers(8, 90, 2)
        pixels[y : y + h, x : x + w] = random.integers(0, 255, 3)
    return pixels


def changed(pixels, change):
    return np.asarray(change(Image.fromarray(pixels)))


def small_jpeg(image):
    data = io.BytesIO()
    image.resize((120, 120)).save(data, "JPEG", quality=40)
    return Image.open(data).convert("RGB")


def test_a_blurred_image_is_told_from_a_sharp_one():
    for seed in range(5):
        blurred = changed(scene(seed), lambda image: image.filter(ImageFilter.GaussianBlur(5)))
        assert sharpness(scene(seed)) > 5 * BLUR_THRESHOLD > BLUR_THRESHOLD > sharpness(blurred)


@pytest.mark.parametrize("size", [(64, 64), (512, 1024), (2048, 1024)])
def test_an_empty_image_of_any_shape_is_blurred(size):
    pixels = np.full((size[1], size[0], 3), 90, np.uint8)
    assert sharpness(pixels) == 0
    assert not difference_hash(pixels).any() and difference_hash(pixels).shape == (128,)


@pytest.mark.parametrize(
    "change", [small_jpeg, lambda image: ImageEnhance.Brightness(image).enhance(1.2)]
)
def test_an_image_stored_again_is_a_twin(change):
    images = [scene(1), scene(2), changed(scene(1), change), scene(3), changed(scene(2), change)]
    assert find_near_duplicates([difference_hash(one) for one in images]) == [
        None,
        None,
        0,
        None,
        1,
    ]


def test_good_photographs_of_one_subject_are_neither_blurred_nor_twins(subjects):
    photos = read_subject(subjects[0], Subject(resolution=256)).photos
    pixels = [load_pixels(photo) for photo in photos]
    assert min(map(sharpness, pixels)) > 2 * BLUR_THRESHOLD
    assert find_near_duplicates([difference_hash(one) for one in pixels]) == [None] * len(photos)


@pytest.mark.parametrize("resolution", [64, 96, 128])
def test_the_bundled_subject_has_no_marks(resolution):
    photos = read_subject(ROOT / "demo" / "subject", Subject(resolution=resolution)).photos
    pixels = [load_pixels(photo) for photo in photos]
    assert min(map(sharpness, pixels)) > BLUR_THRESHOLD
    assert find_near_duplicates([difference_hash(one) for one in pixels]) == [None] * len(photos)
