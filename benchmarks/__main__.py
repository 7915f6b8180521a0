"""``python -m benchmarks``, from the repository's root; ``--help`` lists the options."""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
runpy.run_path(str(ROOT / "__main__.py"), run_name="likeness_main")["load_package"]()

from likeness.trainers.files import write_between_marks  # noqa: E402  they need the package

from .material import write_model, write_pictures  # noqa: E402
from .measure import WARM_UP, Measured, measure  # noqa: E402
from .sides import (  # noqa: E402
    CASES,
    PICTURES,
    VARIABLE,
    Setting,
    our_arguments,
    recipe_of,
    script_arguments,
)
from .table import machine, markdown  # noqa: E402

SCRIPT = "diffusers' script"
PAGE = ROOT / "docs" / "performance.md"

Results = dict[tuple[str, str], list[Measured]]


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--size", choices=("tiny", "full"), default="full")
    parser.add_argument("--steps", type=int, default=8, help="steps counted in each round")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each side, in turn")
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "fp16", "bf16"))
    parser.add_argument("--resolution", type=int, help="default: 128 on the CPU, else 512")
    parser.add_argument("--optimizer", choices=("adamw", "adamw8bit"))
    parser.add_argument("--folder", type=Path, help="keep model and runs here")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    return parser.parse_args(arguments)


def setting_of(given: argparse.Namespace, folder: Path) -> Setting:
    """The common setting; writes model and pictures into `folder`."""
    resolution = given.resolution or (128 if given.device == "cpu" else 512)
    eight_bit = importlib.util.find_spec("bitsandbytes") is not None
    return Setting(
        model=write_model(folder, given.size),
        photos=write_pictures(folder / f"photos-{resolution}", PICTURES, resolution, seed=0),
        class_images=write_pictures(folder / f"class-{resolution}", PICTURES, resolution, seed=1),
        resolution=resolution,
        steps=given.steps + WARM_UP + 1,
        precision=given.precision or ("fp32" if given.device == "cpu" else "fp16"),
        optimizer=given.optimizer or ("adamw8bit" if eight_bit else "adamw"),
    )


def compare(given: argparse.Namespace, folder: Path, setting: Setting) -> Results:
    """Both sides of every case, in turn, so that a busy minute of the machine hits both."""
    results: Results = {}
    for case in given.only or CASES:
        recipe = recipe_of(case, setting)
        for number in range(given.rounds):
            for side, ask in (("Likeness", our_arguments), (SCRIPT, script_arguments)):
                with tempfile.TemporaryDirectory(dir=folder) as room:
                    arguments = ask(recipe, setting, Path(room))
                    if arguments is None:
                        continue
                    run = measure(arguments, Path(room), cpu=given.device == "cpu")
                print(f"{case}, {side}, round {number + 1}: {_short(run)}", flush=True)
                results.setdefault((case, side), []).append(run)
    return results


def _short(run: Measured) -> str:
    steps = ", ".join(f"{seconds:.3g}" for seconds in run.intervals)
    return run.error or f"first step after {run.first_step:.1f} s, then {steps} s"


def main() -> None:
    """Measures, prints the table, and writes it if asked."""
    given = parse()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        setting = setting_of(given, folder)
        results = compare(given, folder, setting)
    about = (
        f"{machine(given.device == 'cpu')}\n\n"
        f"{given.size} model of random weights, {setting.resolution} x {setting.resolution} "
        f"pixels, {setting.precision}, {setting.optimizer}, batch 1 with one class image; "
        f"{given.steps} steps in each of {given.rounds} rounds after a warm-up."
    )
    text = f"{about}\n\n{markdown(results)}"
    print(f"\n{text}")
    if (next(iter(results))[0], SCRIPT) not in results:
        print(f"\nNot compared: set {VARIABLE} to diffusers' examples/dreambooth folder.")
    if given.write:
        write_between_marks(PAGE, "make bench", text)
        print(f"\nWritten to {PAGE}.")


if __name__ == "__main__":
    main()
