"""On real photographs, the same subject's others are more alike than another subject's.

LIKENESS_SUBJECTS and LIKENESS_FACES name folders with a folder of photographs for each subject, the
latter of portraits. CLIP and DINOv2 come from LIKENESS_CLIP, LIKENESS_CLIP_TEXT and LIKENESS_DINO,
the face network from its packages. Nothing of them is in the repository, so each test says what it
lacks.
"""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from likeness.comparison.encoders import EncoderFiles, encode_files, find_encoders
from PIL import Image

PHOTOS = {".jpg", ".jpeg", ".png"}


def given(name):
    return Path(os.environ[name]) if name in os.environ else None


def find(key):
    """An encoder by its key; skips where it is not installed."""
    files = EncoderFiles(
        given("LIKENESS_CLIP"), given("LIKENESS_CLIP_TEXT"), given("LIKENESS_DINO")
    )
    found, missing = find_encoders(files)
    for encoder in found:
        if encoder.key == key:
            return encoder
    pytest.skip(" ".join(missing))


def vectors_of(name, encoder):
    """Vectors by subject, of the images that have one; skips without two subjects of two."""
    folder = given(name)
    if folder is None:
        pytest.skip(f"{name} names no folder of photographs")
    found = {}
    for subject in sorted(path for path in folder.iterdir() if path.is_dir()):
        photos = sorted(path for path in subject.iterdir() if path.suffix in PHOTOS)
        vectors = encode_files(encoder, photos)
        found[subject.name] = vectors[~np.isnan(vectors).any(1)]
    if sum(len(vectors) > 1 for vectors in found.values()) < 1 or len(found) < 2:
        seen = ", ".join(f"{name} {len(vectors)}" for name, vectors in found.items())
        pytest.skip(f"{encoder.name} finds something to compare on too few photographs: {seen}")
    return found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("key", ["clip", "dino", "face"])
@pytest.mark.parametrize("photographs", ["LIKENESS_SUBJECTS", "LIKENESS_FACES"])
def test_photographs_of_one_subject_are_more_alike_than_those_of_two(key, photographs):
    encoder = find(key)
    vectors = vectors_of(photographs, encoder)
    for name, mine in vectors.items():
        if len(mine) < 2:
            continue
        same = np.mean([encoder.likeness(*pair)[0, 0] for pair in combinations(mine[:, None], 2)])
        for other, theirs in vectors.items():
            if other != name and len(theirs):
                apart = encoder.likeness(mine, theirs).mean()
                print(f"{encoder.name}: {name} {same:.3f}, with {other} {apart:.3f}")
                assert same > apart


def test_an_image_without_a_face_has_no_vector():
    face = find("face")
    vectors = face.encode([Image.new("RGB", (64, 64), "grey")])
    assert vectors.shape == (1, 128) and np.isnan(vectors).all()
    assert np.isnan(face.likeness(vectors, np.zeros((2, 128), np.float32))).all()
    known = np.zeros((1, 128), np.float32)
    assert face.likeness(known, known + 0.05).item() == pytest.approx(1 - 0.05 * 128**0.5)
