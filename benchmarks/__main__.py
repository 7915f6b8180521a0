"""``python -m benchmarks TABLE``, run from the repository root; README.md describes the tables."""

from __future__ import annotations

import importlib
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLES = {
    "trainings": "steps and whole runs, against other trainers",
    "class-images": "class images, against a diffusers pipeline",
    "comparison": "8 variants x 6 prompts, against a diffusers pipeline",
    "matrix": "a Matrix in ComfyUI, against core's nodes",
    "panel": "a training with and without its panel in a browser",
    "viewer": "scrolling through a large comparison",
    "scale": "many photographs and class images",
    "parts": "each optimisation on its own",
    "roofline": "FLOP/s of a step, against a matrix product",
    "tiers": "peak memory in each memory tier, of a GPU or a stand-in",
    "curve": "losses, against diffusers' script, as a plot",
}


def main(arguments: list[str]) -> None:
    """Measures the named table, by default the trainings."""
    if arguments[:1] in (["-h"], ["--help"]):
        print("python -m benchmarks TABLE [OPTION…]\n")
        print("\n".join(f"  {name:14}{about}" for name, about in TABLES.items()))
        return
    named = bool(arguments) and not arguments[0].startswith("-")
    table = arguments[0] if named else "trainings"
    if table not in TABLES:
        sys.exit(f"There is no table {table!r}: choose one of {', '.join(TABLES)}.")
    runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()
    module = importlib.import_module(f".{table.replace('-', '_')}", __package__)
    module.main(arguments[1:] if named else arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
