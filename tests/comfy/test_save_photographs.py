"""Images of core's nodes become a subject's photographs in one prompt."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.comfy, pytest.mark.timeout(300)]


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def test_images_of_other_nodes_are_read_by_subject_in_the_same_prompt(comfy):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 80, 4), dtype=np.uint8)
    pixels[..., 3] = 0
    pixels[20:60, 20:60, 3] = 255
    Image.fromarray(pixels).save(comfy.home / "input" / "cut out.png")
    prompt = {
        "1": node("LoadImage", image="cut out.png"),
        "2": node("InvertMask", mask=["1", 1]),
        "3": node(
            "Likeness_SavePhotographs",
            images=["1", 0],
            folder="from nodes",
            masks=["2", 0],
            captions=["6", 0],
        ),
        "4": node(
            "Likeness_Subject",
            folder=["3", 0],
            token="sks",
            class_word="man",
            prompt="a photo of {token} {class}",
            resolution=64,
            crop="center",
            buckets=False,
            captions=True,
            flip=False,
            mask="file",
        ),
        "5": node("PreviewAny", source=["4", 2]),
        "6": node("PrimitiveString", value="sks at sea"),
    }
    outcome = comfy.run(prompt)
    assert outcome.status == "success"
    (report,) = outcome.outputs["5"]["text"]
    assert "1 photograph" in report and "80" in report
    saved = [path.name for path in (comfy.home / "input" / "from nodes").iterdir()]
    assert len(saved) == 3 and any(name.endswith("-masklabel.png") for name in saved)
    mask = next((comfy.home / "input" / "from nodes").glob("*-masklabel.png"))
    assert np.asarray(Image.open(mask))[40, 40] == 255
