import numpy as np
import pytest
from likeness.demo.random_model import write_random_model
from likeness.trainers.places import Places
from PIL import Image


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A tiny base of random weights and three smooth random photographs."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "photos").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC)
        picture.save(folder / "photos" / f"{i}.png")
    return Places(
        base=write_random_model(folder / "base.safetensors", dtype="fp32"),
        photos=folder / "photos",
        runs=folder / "runs",
        loras=folder / "loras",
        checkpoints=folder / "checkpoints",
        cache=folder / "cache",
    )
