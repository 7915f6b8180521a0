"""Face identity by dlib's recognition network.

The network (dlib_face_recognition_resnet_model_v1, Davis King, public domain) encodes a face as 128
numbers. Its files come with the package face_recognition_models, which is not imported: it needs
pkg_resources, which setuptools no longer has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..trainers.packages import is_installed
from .encoders import MissingEncoder, Values, Vectors
from .vision import weights_digest, wrap_load_errors

WIDTH = 128
_MAX_DETECTION_SIDE = 800  # pixels; larger images are shrunk for detection
_NETWORK = "dlib_face_recognition_resnet_model_v1.dat"
_LANDMARKS = "shape_predictor_5_face_landmarks.dat"


@dataclass(frozen=True)
class Face:
    """Encodes the largest face in an image.

    The similarity is 1 - distance; above 0.4 dlib considers two faces the same person.
    """

    detector: Any
    landmarks: Any
    network: Any
    digest: str
    name: str = "face (dlib)"
    key: str = "face"
    identity_only: bool = True

    def encode(self, images: Sequence[Image.Image]) -> Vectors:
        """Vectors (n, 128); NaN for an image without a face."""
        return np.stack([self._encode(image) for image in images])

    def likeness(self, a: Vectors, b: Vectors) -> Values:
        """1 - Euclidean distance, (n, m)."""
        apart = a[:, None].astype(np.float64) - b[None].astype(np.float64)
        return np.asarray(1 - np.linalg.norm(apart, axis=-1))

    def _encode(self, image: Image.Image) -> Vectors:
        seen = image.copy()
        seen.thumbnail((_MAX_DETECTION_SIDE, _MAX_DETECTION_SIDE))
        pixels = np.asarray(seen)
        faces = self.detector(pixels, 0) or self.detector(pixels, 1)  # 1: upsampled once, 2x
        if not faces:
            return np.full(WIDTH, np.nan, np.float32)
        face = max(faces, key=lambda rectangle: rectangle.area())
        shape = self.landmarks(pixels, face)
        return np.array(self.network.compute_face_descriptor(pixels, shape), np.float32)


def load_face() -> Face:
    """Loads the face network from the installed packages. Raises MissingEncoder."""
    name = "face_recognition_models"
    package = find_spec(name) if is_installed(name) else None
    if package is None or package.origin is None or not is_installed("dlib"):
        raise MissingEncoder(
            "The face score is left out: for it, run pip install dlib-bin face_recognition_models."
        )
    import dlib

    folder = Path(package.origin).parent / "models"
    with wrap_load_errors("The package face_recognition_models"):
        return Face(
            dlib.get_frontal_face_detector(),
            dlib.shape_predictor(str(folder / _LANDMARKS)),
            dlib.face_recognition_model_v1(str(folder / _NETWORK)),
            weights_digest([folder / _LANDMARKS, folder / _NETWORK], None),
        )
