"""The drawings that the miniature is trained on, drawn once on all cores and stored in shards.

One core draws about 140 images per second, while a GPU trains on thousands. Images are
therefore drawn beforehand and used many times, each time with different noise and captions.

A shard is a safetensors file of `SHARD` images of one size:

    pixels    uint8 (n, h, w, 3)
    captions  uint8, UTF-8 text: n * CAPTIONS lines, grouped by image
    facts     int8 (n, questions), see `facts.truth`
    traits    float16 (n, 26)
    joints    float16 (n, 18, 3): x, y from 0 to 1 and visibility, see `world.keypoints`

Four consecutive images form a group: two of a person, then two of a twin with the same attributes
but other traits. This lets a judge learn identity beyond what captions say.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..trainers.errors import CheckpointError, RunFailed
from ..trainers.files import write_atomic
from .facts import QUESTIONS, rejected, trait_values, truth
from .scene import PLACES

PACKAGE = Path(__file__).resolve().parents[1]
CAPTIONS = 4
GROUP = 4
SHARD = 2048
HELD_OUT = 1_000_000  # number of the shard for evaluation only
FLAWED = 0.06  # share of spoiled drawings, which give negative prompts their meaning
EMPTY = 0.02  # share of places without a person, which the judge must reject
_FORMAT = "1"


@dataclass(frozen=True)
class Size:
    """An image size and its share of all images."""

    width: int
    height: int
    share: float

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


SIZES = (Size(128, 128, 0.35), Size(96, 128, 0.45), Size(64, 64, 0.20))


Shard = tuple[Size, int, Path]


def shards(folder: Path, images: int) -> list[Shard]:
    """Size, number and file of the shards for about `images`, interleaved by size.

    The files may not exist yet. More images only add shards.
    """
    counts = {size: max(1, round(images * size.share / SHARD)) for size in SIZES}
    every = [
        (size, n, folder / f"{size}-{n:04d}.safetensors")
        for size, count in counts.items()
        for n in range(count)
    ]
    return sorted(every, key=lambda shard: shard[1])


# Drawing.


def draw_shard(path: Path, size: Size, number: int, count: int = SHARD) -> None:
    """Draws shard `number` of a size; equal arguments give equal bytes."""
    write_atomic(path, save(images_of(size, number, count), {"format": _FORMAT}))


def images_of(size: Size, number: int, count: int = SHARD) -> dict[str, NDArray[Any]]:
    """The arrays of a shard (see the module docstring); `count` is a multiple of GROUP."""
    groups = [_group(size, (number, place)) for place in range(count // GROUP)]
    rows = [row for group in groups for row in group]
    text = "\n".join(caption for row in rows for caption in row["captions"])
    arrays = {key: np.stack([row[key] for row in rows]) for key in ("pixels", "facts")}
    arrays |= {
        key: np.stack([r[key] for r in rows]).astype(np.float16) for key in ("traits", "joints")
    }
    return arrays | {"captions": np.frombuffer(text.encode(), np.uint8)}


def _group(size: Size, seed: tuple[int, int]) -> list[dict[str, Any]]:
    from . import world

    rng = np.random.default_rng((size.width, size.height, *seed))
    person = world.random_identity(rng)
    twin = replace(person, traits=world.random_traits(rng))
    rows = []
    for who in (person, person, twin, twin):
        scene = world.random_scene(rng, who, flaws=FLAWED)
        rows.append(
            {
                "pixels": world.draw(scene, size.width, size.height),
                "captions": [world.caption(scene, rng) for _ in range(CAPTIONS)],
                "facts": truth(scene),
                "traits": trait_values(who),
                "joints": world.keypoints(scene, size.width, size.height),
            }
        )
    if rng.random() < EMPTY * GROUP:
        rows[-1] |= _empty(size, rng)
    return rows


def _empty(size: Size, rng: np.random.Generator) -> dict[str, Any]:
    """An image of a place without a person."""
    from .places import new_canvas

    place = PLACES[int(rng.integers(len(PLACES)))]
    canvas = new_canvas(place, size.width, size.height, 1.0, int(rng.integers(1 << 31)))
    return {
        "pixels": canvas.pixels(), "captions": [""] * CAPTIONS, "facts": rejected(),
        "joints": np.zeros((18, 3)),
    }  # fmt: skip


def draw_missing(
    folder: Path,
    images: int,
    *,
    workers: int,
    deadline: float,
    share: tuple[int, int] = (0, 1),
    say: Callable[[str], None] = lambda text: None,
) -> bool:
    """Draws missing shards in `workers` processes; returns True if the share is complete.

    No shard is started after `deadline`, a time of `time.monotonic()`. `share` (k, n) draws only
    every n-th shard, from the k-th on.

    Raises:
        RunFailed: a worker failed.
    """
    mine = shards(folder, images)[share[0] :: share[1]]
    todo = [shard for shard in mine if not shard[2].is_file()]
    if workers > 1 and todo:
        _in_processes(folder, images, workers, deadline, share)
    else:
        for done, (size, number, path) in enumerate(todo):
            if time.monotonic() > deadline:
                break
            draw_shard(path, size, number)
            say(f"{done + 1} of {len(todo)} shards drawn")
    return all(path.is_file() for _, _, path in mine)


def _in_processes(
    folder: Path, images: int, workers: int, deadline: float, share: tuple[int, int]
) -> None:
    """Draws in worker processes that run the same command, without shared state or fork."""
    minutes = max(0.0, deadline - time.monotonic()) / 60
    command = [sys.executable, str(PACKAGE), "demo", "pretrain", "--stage", "draw"]
    command += ["--out", str(folder.parent), "--images", str(images), "--workers", "1"]
    command += ["--minutes", f"{min(minutes, 1e6):.3f}"]
    first, every = share
    parts = [f"{first + every * k}/{every * workers}" for k in range(workers)]
    started = [
        subprocess.Popen([*command, "--share", part], stdout=subprocess.DEVNULL) for part in parts
    ]
    codes = [process.wait() for process in started]
    if any(codes):
        raise RunFailed(
            f"{sum(map(bool, codes))} of {workers} drawing processes failed: see above."
        )


# Reading.


def read(path: Path, *keys: str) -> dict[str, NDArray[Any]]:
    """Reads arrays of a shard. Raises CheckpointError if it is damaged or has another format."""
    try:
        with safe_open(str(path), "np") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise ValueError("it has another format")
            arrays = {key: file.get_tensor(key) for key in keys}
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}): delete it to have it drawn again."
        ) from None
    if "facts" in arrays and arrays["facts"].shape[1] != len(QUESTIONS):
        raise CheckpointError(f"{path} has other questions than this version: delete its folder.")
    return arrays


def captions_of(text: NDArray[np.uint8]) -> list[str]:
    """The lines of a shard's `captions`."""
    return text.tobytes().decode().split("\n")
