"""Trains in this process and prints the memory that its loop took on the GPU, as JSON.

``python tier_worker.py DEVICE FOLDER RECIPE PLACES``. On DEVICE cpu the GPU is the stand-in of
``tests/gpu``, whose library is kept in FOLDER.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def install_stand_in(folder: Path) -> None:
    """Builds the stand-in for a GPU unless `folder` has it, and loads it."""
    stand_in = runpy.run_path(str(ROOT / "tests" / "gpu" / "stand_in.py"))
    if lack := stand_in["problem"]():
        raise SystemExit(lack)
    library = folder / "stand_in.so"
    if not library.exists():
        stand_in["build"](library)
    stand_in["install"](library)


def measured(recipe_file: Path, places_file: Path, graphs: bool) -> dict[str, float]:
    """Bytes `before` the first step, at the `peak` of the loop, and as `estimated`."""
    import torch
    from accelerate import Accelerator
    from likeness.trainers import loop, tier_choice
    from likeness.trainers.memory_tiers import estimate_memory
    from likeness.trainers.places import Places
    from likeness.trainers.preparation import prepare
    from likeness.trainers.recipe import read_recipe
    from likeness.trainers.stop import StopSignal

    recipe = read_recipe(recipe_file).changed(compute={"graphs": graphs})
    places = Places.model_validate_json(places_file.read_text(encoding="utf-8"))
    folder, found, train_loop = prepare(recipe, places), {}, loop.train_loop

    def counted(run: Any, training: Any, start: int) -> int:
        base, parameters = training.base, training.state.parameters
        weights = sum(
            p.nbytes for part in (base.unet, base.text_encoder) for p in part.parameters()
        )
        size = tier_choice.model_size(run.recipe, base, parameters, chunks=1)
        estimate = estimate_memory(training.tier, run.recipe, run.precision, size)
        found.update(before=torch.cuda.memory_allocated(), estimated=weights + estimate)
        torch.cuda.reset_peak_memory_stats()
        steps = train_loop(run, training, start)
        found["peak"] = torch.cuda.max_memory_allocated()
        return steps

    loop.train_loop = counted
    loop.train(folder, Accelerator(), lambda kind, **data: None, StopSignal(folder.stop))
    return found


if __name__ == "__main__":
    device, kept, *files = sys.argv[1:]
    if device == "cpu":
        install_stand_in(Path(kept))
    runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()
    # A captured graph of the stand-in holds every tensor.
    print(json.dumps(measured(*map(Path, files), graphs=device != "cpu")))
