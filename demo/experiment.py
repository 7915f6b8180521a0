"""`likeness demo`: the main job from photographs to a picture, without any download.

The base is a model of random weights: it shows that every part works, and draws coloured noise.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..trainers.job import train
from ..trainers.places import Places
from ..trainers.presets import preset
from ..trainers.terminal import Screen, print_result
from .random_model import write_random_model

PHOTOS = Path(__file__).with_name("subject")
PROMPT = "a photo of sks man face"


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Prints how long a stage took."""
    start = time.perf_counter()
    yield
    print(f"{name:9}{time.perf_counter() - start:6.1f} s\n")


def run(output: Path) -> None:
    """Trains a LoRA of rank 4 on the 15 drawings and draws one picture with it."""
    from PIL import Image

    print(
        "The base of this demo has random weights: its pictures are coloured noise, with or "
        "without\ntraining. It shows each step of the main job, not what a real base learns.\n"
    )
    with stage("base"):
        base = write_random_model(output / "models" / "random.safetensors", dtype="fp32")
        print(f"base     {base}")
    with stage("train"):
        result = _train(base, output)
    with stage("draw"):
        from ..comparison.sample import draw, load_with_adapter

        model = load_with_adapter(base, result)
        picture = output / f"{result.stem}.png"
        Image.fromarray(draw(model, [PROMPT], width=128, height=128, steps=20)[0]).save(picture)
        print(f"picture  {picture}")


def _train(base: Path, output: Path) -> Path:
    recipe = preset("lora-r4").changed(
        name="demo",
        subject={"resolution": 128},
        prior={"count": 15, "steps": 10},
        schedule={"steps": 60},
        compute={"precision": "fp32", "attention": "sdpa"},
        optimizer={"name": "adamw"},
    )
    places = Places(
        base=base,
        photos=PHOTOS,
        runs=output / "likeness" / "runs",
        loras=output / "loras",
        checkpoints=output / "checkpoints",
        cache=output / "likeness" / "cache",
    )
    screen = Screen()
    try:
        result = train(recipe, places, on_event=screen.show, device="cpu")
    finally:
        screen.close()
    print_result(result)
    return result.adapter
