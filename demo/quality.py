"""`likeness demo quality`: trains the miniature on unseen people, and measures the results.

For each person and seed, the base is trained with each recipe, and the judge's scores of every
model are written as one line to ``<out>/quality.jsonl``. Existing lines are not measured again, so
the command can be stopped at any time.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from PIL import Image

from ..comparison.sample import load_with_adapter
from ..trainers.arguments import apply_overrides
from ..trainers.cli import ProgressBars
from ..trainers.errors import RecipeError
from ..trainers.files import replace
from ..trainers.job import train
from ..trainers.places import Places
from ..trainers.presets import preset
from ..trainers.recipe import Recipe
from ..trainers.resize import resize_file
from . import given_names, miniature, weights
from .casting import random_identity
from .drawn import measure_drawings
from .judge import Judge, Reference, load_judge, reference_for
from .measures import Canvas, Images, Measures, measure
from .pretrain_vae import tiled
from .scene import Identity
from .subject import write_subject

BASE = "base"
NAMED = "named"  # the base with the token's embedding set to the person: the limit of one word
DRAWN = "drawn"  # no model but the world's drawings through the VAE: the upper bound
_UNTRAINED = (BASE, NAMED, DRAWN)
ROWS = (BASE, NAMED, "tiny", "lora-r1", "lora-r4", "lora-r8", "standard", DRAWN)
# Number of the first person. The sweep's people differ from those of the published results.
PEOPLE = {"quality": 5000, "sweep": 7000}
_BARE = "-no-prior"
_CUT = re.compile(r"(lora-.+)-cut-(\d+)")
_OF = {"base": weights.CHECKPOINT, "judge": weights.JUDGE, "controlnet": weights.CONTROLNET}
LINES = "quality.jsonl"
CANVAS = Canvas()


@dataclass(frozen=True)
class Options:
    """The command's options.

    `rows` are ROWS, optionally with ``-no-prior``, and for a LoRA followed by ``-cut-N``: resized
    to rank N after training. `steps` are step counts, each with its own training, because the
    learning-rate schedule depends on it (None: the recipe's); `settings` are FIELD=VALUE changes to
    every recipe.
    """

    out: Path
    rows: Sequence[str] = ROWS
    people: int = 5
    seeds: int = 3
    first: int = PEOPLE["quality"]
    steps: Sequence[int] | None = None
    settings: Sequence[str] = ()
    draws: int = 2
    weights: Path = weights.FOLDER
    say: Callable[[str], None] = print


def run(options: Options) -> Path:
    """Measures everything that is missing; returns the file of results.

    Raises RecipeError for an invalid row or setting, BaseModelError without the miniature's
    weights, and whatever training raises.
    """
    for row in options.rows:
        _recipe(row, options.settings)  # fails early for an invalid name
    study = _Study(options)
    for person in range(options.first, options.first + options.people):
        for seed in range(options.seeds):
            for row in options.rows:
                study.measure(person, seed, row)
    return study.lines


def person(number: int) -> Identity:
    """A man of the drawn world, determined by his number."""
    return random_identity(np.random.default_rng((number, 3)), "man")


def photos_of(folder: Path) -> Images:
    """The photographs in a folder, resized and centre-cropped to the size of judged images."""
    photos = [Image.open(path).convert("RGB") for path in sorted(folder.iterdir())]
    side, edge = CANVAS.height, (CANVAS.height - CANVAS.width) // 2
    squares = np.stack([np.asarray(photo.resize((side, side))) for photo in photos])
    return squares[:, :, edge : side - edge]


class _Study:
    """State shared by all measurements."""

    def __init__(self, options: Options) -> None:
        self._options, self.lines = options, options.out / LINES
        self._base = weights.find(weights.CHECKPOINT, options.weights)
        self._judge: Judge = load_judge(weights.find(weights.JUDGE, options.weights))
        self._controlnet = miniature.load_controlnet(
            weights.find(weights.CONTROLNET, options.weights)
        )
        self._digests = _digests(options)
        self._references: dict[int, Reference] = {}
        self._known = {_key(line) for line in read_lines(self.lines)}

    def measure(self, number: int, seed: int, row: str) -> None:
        """Trains and measures one row of a person and seed."""
        settings = list(self._options.settings) if row not in _UNTRAINED else []
        for steps in self._parts(row):
            line: dict[str, Any] = {
                "person": number, "seed": seed, "row": row, "steps": steps, "settings": settings,
                "draws": self._options.draws, **self._digests,
                "recipe": _recipe_digest(row, self._options.settings),
            }  # fmt: skip
            if _key(line) in self._known:
                continue
            adapter, seconds = self._adapter(number, seed, row, steps)
            line |= {"train_seconds": round(seconds, 1)}
            line |= self._numbers(number, seed, row, steps, adapter).to_dict()
            with self.lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._options.say(json.dumps(line))

    def _parts(self, row: str) -> Sequence[int]:
        if row in _UNTRAINED:
            return (0,)
        return self._options.steps or (_recipe(row, self._options.settings).schedule.steps,)

    def _photos(self, number: int) -> Path:
        folder = self._options.out / "people" / str(number)
        if not folder.is_dir():
            partial = folder.with_name(f".{number}.{os.getpid()}")  # renamed when complete
            write_subject(partial, seed=number, identity=person(number))
            try:
                replace(partial, folder)
            except OSError:
                if not folder.is_dir():
                    raise
                rmtree(partial)  # another process wrote the same images first
        return folder

    def _reference(self, number: int) -> Reference:
        """The judge's reference of a person, at the size of the judged images."""
        if number not in self._references:
            photos = photos_of(self._photos(number))
            self._references[number] = reference_for(self._judge, person(number), photos)
        return self._references[number]

    def _adapter(self, number: int, seed: int, row: str, steps: int) -> tuple[Path | None, float]:
        """Trains an adapter for `steps`; returns it and the seconds of training."""
        if row in _UNTRAINED:
            return None, 0.0
        out = self._options.out
        places = Places(
            base=self._base, photos=self._photos(number), runs=out / "runs", loras=out / "loras",
            checkpoints=out / "checkpoints", cache=out / "cache",
        )  # fmt: skip
        recipe = _recipe(row, self._options.settings).changed(
            name=f"p{number}", seed=seed, schedule={"steps": steps}
        )
        result = _train(recipe, places)
        adapter: Path = result.adapter
        if cut := _CUT.fullmatch(row):
            adapter = adapter.with_name(f"{adapter.stem}-cut-{cut[2]}.safetensors")
            resize_file(result.adapter, int(cut[2]), adapter)
        return adapter, sum(result.seconds.values())

    def _numbers(
        self, number: int, seed: int, row: str, steps: int, adapter: Path | None
    ) -> Measures:
        model = load_with_adapter(self._base, adapter)
        if row == NAMED:
            given_names.name(model.text_encoder, person(number))
        judge, draws, subject = self._judge, self._options.draws, self._reference(number)
        if row == DRAWN:
            numbers, images = measure_drawings(
                person(number), model.vae, judge, subject, draws=draws, seed=seed, canvas=CANVAS
            )
        else:
            numbers, images = measure(
                model, judge, subject, controlnet=self._controlnet, draws=draws, seed=seed
            )
        folder = self._options.out / "images"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{number}-{seed}-{row}-{steps}.png"
        Image.fromarray(tiled(images, len(images))).save(folder / name)
        return numbers


def _recipe(row: str, settings: Sequence[str]) -> Recipe:
    """The miniature's recipe of a row. Raises RecipeError."""
    trained = cut[1] if (cut := _CUT.fullmatch(row)) else row
    if trained.removesuffix(_BARE) not in ROWS:
        raise RecipeError(f"There is no row {row!r}: choose from {', '.join(ROWS)}, optionally "
                          f"followed by {_BARE}, and for LoRAs by -cut-1.")  # fmt: skip
    if row in _UNTRAINED:
        return preset("miniature-standard")
    recipe = preset(f"miniature-{trained.removesuffix(_BARE)}")
    if trained.endswith(_BARE):
        recipe = recipe.changed(prior=None)
    return apply_overrides(recipe, list(settings))


def _recipe_digest(row: str, settings: Sequence[str]) -> str:
    return _recipe(row, settings).digest()[:12]


def _digests(options: Options) -> dict[str, str]:
    """Digests of the weights that the scores depend on."""
    return {
        name: weights.digest(weights.find(file, options.weights))[:12] for name, file in _OF.items()
    }


def _train(recipe: Recipe, places: Places) -> Any:
    screen = ProgressBars()
    try:
        return train(recipe, places, on_event=screen.show, device="cpu")
    finally:
        screen.close()


def asked_lines(options: Options) -> list[dict[str, Any]]:
    """The results of the people in `options`.

    Results with other weights, or with another recipe of the row, are skipped.
    """
    people, digests = range(options.first, options.first + options.people), _digests(options)
    return [
        line
        for line in read_lines(options.out / LINES)
        if line["person"] in people
        and all(line.get(name) == digest for name, digest in digests.items())
        and line.get("recipe") == _recipe_digest(line["row"], line["settings"])
    ]


def _key(line: dict[str, Any]) -> str:
    names = ("person", "seed", "row", "steps", "settings", "draws", "recipe", *_OF)
    return json.dumps([line.get(name) for name in names])


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The results in a file, one per line; none if it does not exist."""
    if path.is_file():
        for text in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(text)
