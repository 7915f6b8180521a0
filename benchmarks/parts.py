"""What each optimisation gives alone: our training with it, and with it taken out."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .measure import Measured, measure
from .options import common, parsed, publish, room, working_folder
from .setting import Setting, our_command, recipe_of, setting_of
from .table import (
    gigabytes,
    intervals,
    machine,
    markdown,
    median_step,
    not_measured,
    ratio,
    spread,
)

Changes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Way:
    """How a run differs from the case's own: fields of the recipe, a patch, an empty cache."""

    changes: Changes = field(default_factory=dict)
    patch: str = ""  # of `patches.py`
    cold: bool = False


@dataclass(frozen=True)
class Part:
    """One optimisation: a case of `setting.CASES` with it and without it."""

    case: str
    without: Way
    with_it: Way = Way()
    device: str = ""  # where it is used; "" everywhere


def compute(**fields: Any) -> Changes:
    """Changes of a recipe's `compute`."""
    return {"compute": fields}


_ADAMW = {"optimizer": {"name": "adamw"}}
_ADAMW8BIT = {"optimizer": {"name": "adamw8bit"}}
PARTS = {
    "latents encoded once": Part("lora", Way(patch="latents_anew")),
    "latents kept for later runs": Part("lora", Way(cold=True)),
    "prompts encoded once, text encoder frozen": Part(
        "lora-frozen-text", Way(patch="prompts_anew")
    ),
    "prompts kept for later runs, text encoder frozen": Part(
        "lora-frozen-text", Way(patch="embeddings_anew")
    ),
    "photograph and class image in one batch": Part("lora", Way(patch="one_kind_a_batch")),
    "fused AdamW": Part("lora", Way(_ADAMW, "plain_adamw"), Way(_ADAMW)),
    "8-bit Adam": Part("dreambooth", Way(_ADAMW), Way(_ADAMW8BIT)),
    "bf16": Part("lora", Way(compute(precision="fp32")), Way(compute(precision="bf16"))),
    "gradient checkpointing": Part(
        "dreambooth", Way(compute(memory="full")), Way(compute(memory="checkpointing"))
    ),
    "updates in the backward pass": Part(
        "dreambooth",
        Way(compute(memory="checkpointing", precision="bf16")),
        Way(compute(memory="in_backward", precision="bf16")),
    ),
    "small convolutions as matrix products": Part(
        "lora", Way(patch="plain_convolutions"), device="cpu"
    ),
    "those products of few pixels by the weights as they lie": Part(
        "lora", Way(patch="weights_turned_round"), device="cpu"
    ),
    "a LoRA's update in one thread": Part(
        "lora",
        Way(compute(precision="bf16"), "all_threads_update"),
        Way(compute(precision="bf16")),
        device="cpu",
    ),
    "attention in fp32, in a bf16 run": Part(
        "lora",
        Way(compute(precision="bf16"), "attention_as_it_comes"),
        Way(compute(precision="bf16")),
        device="cpu",
    ),
    "8-bit Adam that does not wait for the GPU after each weight": Part(
        "lora", Way(_ADAMW8BIT, "waits_after_each_weight"), Way(_ADAMW8BIT), device="cuda"
    ),
    "CUDA graphs": Part("lora", Way(compute(graphs=False)), device="cuda"),
    "xformers' attention": Part("lora", Way(), Way(compute(attention="xformers")), device="cuda"),
    "torch.compile (off by default)": Part(
        "lora", Way(), Way(compute(compile=True)), device="cuda"
    ),
    "channels-last (not used)": Part("lora", Way(), Way(patch="channels_last")),
    "weights mapped, not read": Part("lora", Way(patch="weights_read_whole")),
    "the base's digest kept": Part("lora", Way(patch="digests_anew")),
}
_HEAD = (
    *("optimisation", "in", "step with it, s", "without, s", "step gains"),
    *("first step with it, s", "without, s", "peak memory with it, GB", "without, GB"),
)


def run(part: Part, way: Way, setting: Setting, folder: Path) -> Measured:
    """One run of a part, from the single checkpoint, which is read as our users' are."""
    recipe = recipe_of(part.case, setting).changed(compute={"memory": "full"})
    recipe = recipe.changed(**way.changes)
    options = ["--patch", way.patch] if way.patch else []
    with room(folder) as place:
        cache = place / "cache" if way.cold else folder / "cache"
        base = setting.model.checkpoint
        command = our_command(recipe, setting, place, *options, base=base, cache=cache)
        return measure(command, place, cpu=setting.device == "cpu")


def fill_cache(given: argparse.Namespace, folder: Path) -> None:
    """The digest and the latents that all runs but the cold ones find."""
    setting = replace(setting_of(given, folder, "fp32"), steps=1)
    run(Part("lora", Way()), Way(), setting, folder)


def compare(
    part: Part, setting: Setting, folder: Path, rounds: int
) -> tuple[list[Measured], list[Measured]]:
    """Rounds with it and without, every other one the other way round: a machine's speed drifts."""
    with_it: list[Measured] = []
    without: list[Measured] = []
    for number in range(rounds):
        both = [(with_it, part.with_it), (without, part.without)]
        for runs, way in both if number % 2 == 0 else reversed(both):
            runs.append(run(part, way, setting, folder))
    return with_it, without


def row(
    name: str, part: Part, with_it: Sequence[Measured], without: Sequence[Measured]
) -> list[str]:
    """A line of the table."""
    whole = [[one for one in rounds if not one.error] for rounds in (with_it, without)]
    for rounds, ended in zip((with_it, without), whole, strict=True):
        if len(intervals(ended)) < 2:
            return [name, part.case, not_measured(rounds)]
    sides = with_it, without = whole
    firsts = [f"{statistics.median(one.first for one in rounds):.1f}" for rounds in sides]
    memory = [gigabytes(max(one.memory for one in rounds)) for rounds in sides]
    steps = [spread(intervals(rounds)) for rounds in sides]
    gain = ratio(median_step(without), median_step(with_it))
    return [name, part.case, *steps, gain, *firsts, *memory]


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it if asked."""
    parser = common("parts", __doc__ or "")
    parser.add_argument("--steps", type=int, default=8, help="steps counted in each round")
    parser.add_argument("--only", choices=PARTS, action="append", metavar="OPTIMISATION")
    given = parsed(parser, arguments)
    rows = []
    with working_folder(given) as folder:
        fill_cache(given, folder)
        for name in given.only or PARTS:
            part = PARTS[name]
            if part.device not in ("", given.device):
                continue
            precision = "fp32" if given.device == "cpu" else "fp16"
            setting = setting_of(given, folder, precision, part.case)
            rows.append(row(name, part, *compare(part, setting, folder, given.rounds)))
            print(" | ".join(rows[-1]), flush=True)
    publish(given, f"{about(given)}\n\n{markdown(_HEAD, rows)}")


def about(given: argparse.Namespace) -> str:
    """What was measured, and on what."""
    precision = "fp32" if given.device == "cpu" else "fp16"
    return (
        f"{machine(given.device == 'cpu')}\n\n{given.size} model of random weights, "
        f"{given.resolution} x {given.resolution} pixels, {precision} where the line says nothing "
        f"else; {given.steps} steps in each of {given.rounds} rounds after a warm-up."
    )
