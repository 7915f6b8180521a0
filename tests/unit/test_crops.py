"""Crop boxes and sizes."""

import pytest
from likeness.trainers.crops import bucket_for, bucket_sizes, crop_box


@pytest.mark.parametrize("resolution", [64, 96, 128, 200, 256, 512, 768, 1024, 2048])
def test_buckets_fill_the_area_and_favour_neither_side(resolution):
    sizes = bucket_sizes(resolution)
    assert {(h, w) for w, h in sizes} == set(sizes)
    assert len(sizes) >= 3
    for w, h in sizes:
        assert w % 8 == h % 8 == 0
        assert 0.75 * resolution**2 < w * h <= resolution**2
        assert 0.5 <= w / h <= 2
        if resolution >= 512:
            assert w % 64 == h % 64 == 0


def test_buckets_of_512():
    assert bucket_sizes(512) == [(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)]
    assert bucket_for(3000, 3000, 512) == (512, 512)
    assert bucket_for(3000, 4000, 512) == (448, 576)
    assert bucket_for(9000, 1000, 512) == (640, 384)


@pytest.mark.parametrize(
    ("face", "box"),
    [
        (None, (50, 0, 150, 100)),
        ((90, 30, 110, 50), (50, 0, 150, 100)),
        ((0, 0, 20, 20), (0, 0, 100, 100)),
        ((180, 80, 200, 100), (100, 0, 200, 100)),
    ],
)
def test_boxes_of_a_wide_image(face, box):
    assert crop_box(200, 100, (64, 64), face) == box


@pytest.mark.parametrize(
    ("image", "size", "box"),
    [
        ((100, 400), (64, 64), (0, 0, 100, 100)),
        ((200, 100), (64, 64), (50, 0, 150, 100)),  # as the centre
        ((100, 400), (384, 640), (0, 0, 100, 167)),
        ((100, 110), (384, 640), (17, 0, 83, 110)),
    ],
)
def test_the_crop_at_the_top_keeps_the_head(image, size, box):
    assert crop_box(*image, size, at_top=True) == box


@pytest.mark.parametrize(
    ("face", "share", "side"),
    [
        ((500, 100, 600, 200), 0.0, 1000),  # as large as can be
        ((500, 100, 600, 200), 0.25, 400),
        ((500, 100, 520, 120), 0.5, 64),  # not below what is trained
        ((100, 100, 900, 900), 0.35, 1000),  # near already
        (None, 0.35, 1000),
    ],
)
def test_a_small_face_is_cropped_closer(face, share, side):
    left, top, right, bottom = crop_box(2000, 1000, (64, 64), face, share)
    assert right - left == bottom - top == side
    if face and side < 1000:
        assert (left + right) / 2 == (face[0] + face[2]) / 2
    tall = crop_box(2000, 1000, (64, 96), face, share)
    assert (tall[2] - tall[0]) / (tall[3] - tall[1]) == pytest.approx(64 / 96, abs=0.01)


def test_a_face_lies_above_the_middle():
    left, top, right, bottom = crop_box(100, 400, (64, 64), (40, 190, 60, 210))
    assert (left, right, bottom - top) == (0, 100, 100)
    assert 200 - top == 40
