"""The gain from each optimisation on its own: our training with it and without it."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .measure import Measurement, measure
from .options import common_parser, parse_options, publish, temporary_folder, working_folder
from .setting import Setting, our_command, recipe_of, setting_of
from .table import (
    format_quartiles,
    format_ratio,
    gigabytes,
    intervals,
    machine,
    markdown,
    median_step,
    not_measured,
)

Changes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class RunVariant:
    """How a run differs from its case: recipe fields, a patch, an empty cache."""

    changes: Changes = field(default_factory=dict)
    patch: str = ""  # a key of `patches.PATCHES`
    cold_cache: bool = False


@dataclass(frozen=True)
class Ablation:
    """One optimisation: a case of `setting.CASES`, with and without it."""

    case: str
    disabled: RunVariant
    enabled: RunVariant = RunVariant()
    device: str = ""  # the device it applies to; "" for all


def compute(**fields: Any) -> Changes:
    """Changes of a recipe's `compute`."""
    return {"compute": fields}


_ADAMW = {"optimizer": {"name": "adamw"}}
_ADAMW8BIT = {"optimizer": {"name": "adamw8bit"}}
ABLATIONS = {
    "latents encoded once": Ablation("lora", RunVariant(patch="no_latent_cache")),
    "latent cache on disk": Ablation("lora", RunVariant(cold_cache=True)),
    "prompts encoded once, text encoder frozen": Ablation(
        "lora-frozen-text", RunVariant(patch="no_prompt_reuse")
    ),
    "prompt cache on disk, text encoder frozen": Ablation(
        "lora-frozen-text", RunVariant(patch="no_embedding_cache")
    ),
    "photograph and class image in one batch": Ablation(
        "lora", RunVariant(patch="split_prior_batch")
    ),
    "fused AdamW": Ablation("lora", RunVariant(_ADAMW, "unfused_adamw"), RunVariant(_ADAMW)),
    "8-bit Adam": Ablation("dreambooth", RunVariant(_ADAMW), RunVariant(_ADAMW8BIT)),
    "bf16": Ablation(
        "lora", RunVariant(compute(precision="fp32")), RunVariant(compute(precision="bf16"))
    ),
    "gradient checkpointing": Ablation(
        "dreambooth",
        RunVariant(compute(memory="full")),
        RunVariant(compute(memory="checkpointing")),
    ),
    "fused backward pass": Ablation(
        "dreambooth",
        RunVariant(compute(memory="checkpointing", precision="bf16")),
        RunVariant(compute(memory="in_backward", precision="bf16")),
    ),
    "small convolutions as matrix products": Ablation(
        "lora", RunVariant(patch="plain_convolutions"), device="cpu"
    ),
    "matrix products without transposing the weights": Ablation(
        "lora", RunVariant(patch="transposed_weights"), device="cpu"
    ),
    "LoRA update in one thread": Ablation(
        "lora",
        RunVariant(compute(precision="bf16"), "multithreaded_update"),
        RunVariant(compute(precision="bf16")),
        device="cpu",
    ),
    "attention in fp32, in a bf16 run": Ablation(
        "lora",
        RunVariant(compute(precision="bf16"), "attention_in_run_dtype"),
        RunVariant(compute(precision="bf16")),
        device="cpu",
    ),
    "8-bit Adam without a GPU sync after each weight": Ablation(
        "lora",
        RunVariant(_ADAMW8BIT, "sync_after_each_weight"),
        RunVariant(_ADAMW8BIT),
        device="cuda",
    ),
    "CUDA graphs": Ablation("lora", RunVariant(compute(graphs=False)), device="cuda"),
    "xformers' attention": Ablation(
        "lora", RunVariant(), RunVariant(compute(attention="xformers")), device="cuda"
    ),
    "torch.compile (off by default)": Ablation(
        "lora", RunVariant(), RunVariant(compute(compile=True)), device="cuda"
    ),
    "channels-last (not used)": Ablation("lora", RunVariant(), RunVariant(patch="channels_last")),
    "memory-mapped weights": Ablation("lora", RunVariant(patch="no_mmap")),
    "cached digest of the base": Ablation("lora", RunVariant(patch="no_digest_cache")),
}
_HEAD = (
    *("optimisation", "in", "step with it, s", "without, s", "step gains"),
    *("first step with it, s", "without, s", "peak memory with it, GB", "without, GB"),
)


def run(ablation: Ablation, way: RunVariant, setting: Setting, folder: Path) -> Measurement:
    """Runs one variant of an ablation, from the single-file checkpoint that users train on."""
    recipe = recipe_of(ablation.case, setting).changed(compute={"memory": "full"})
    recipe = recipe.changed(**way.changes)
    options = ["--patch", way.patch] if way.patch else []
    with temporary_folder(folder) as place:
        cache = place / "cache" if way.cold_cache else folder / "cache"
        base = setting.model.checkpoint
        command = our_command(recipe, setting, place, *options, base=base, cache=cache)
        return measure(command, place, cpu=setting.device == "cpu")


def fill_cache(args: argparse.Namespace, folder: Path) -> None:
    """Caches the digest and latents that all runs but the cold ones reuse."""
    setting = replace(setting_of(args, folder, "fp32"), steps=1)
    run(Ablation("lora", RunVariant()), RunVariant(), setting, folder)


def compare(
    ablation: Ablation, setting: Setting, folder: Path, rounds: int
) -> tuple[list[Measurement], list[Measurement]]:
    """Runs rounds with and without it, alternating the order, because a machine's speed drifts."""
    enabled: list[Measurement] = []
    disabled: list[Measurement] = []
    for number in range(rounds):
        both = [(enabled, ablation.enabled), (disabled, ablation.disabled)]
        for runs, way in both if number % 2 == 0 else reversed(both):
            runs.append(run(ablation, way, setting, folder))
    return enabled, disabled


def row(
    name: str, ablation: Ablation, enabled: Sequence[Measurement], disabled: Sequence[Measurement]
) -> list[str]:
    """A line of the table."""
    whole = [[one for one in rounds if not one.error] for rounds in (enabled, disabled)]
    for rounds, ended in zip((enabled, disabled), whole, strict=True):
        if len(intervals(ended)) < 2:
            return [name, ablation.case, not_measured(rounds)]
    sides = enabled, disabled = whole
    firsts = [f"{statistics.median(one.first for one in rounds):.1f}" for rounds in sides]
    memory = [gigabytes(max(one.memory for one in rounds)) for rounds in sides]
    steps = [format_quartiles(intervals(rounds)) for rounds in sides]
    gain = format_ratio(median_step(disabled), median_step(enabled))
    return [name, ablation.case, *steps, gain, *firsts, *memory]


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes it with --write."""
    parser = common_parser("parts", __doc__ or "")
    parser.add_argument("--steps", type=int, default=8, help="measured steps per round")
    parser.add_argument("--only", choices=ABLATIONS, action="append", metavar="OPTIMISATION")
    args = parse_options(parser, arguments)
    rows = []
    with working_folder(args) as folder:
        fill_cache(args, folder)
        for name in args.only or ABLATIONS:
            ablation = ABLATIONS[name]
            if ablation.device not in ("", args.device):
                continue
            precision = "fp32" if args.device == "cpu" else "fp16"
            setting = setting_of(args, folder, precision, ablation.case)
            rows.append(row(name, ablation, *compare(ablation, setting, folder, args.rounds)))
            print(" | ".join(rows[-1]), flush=True)
    publish(args, f"{about(args)}\n\n{markdown(_HEAD, rows)}")


def about(args: argparse.Namespace) -> str:
    """Describes the measurement and the machine."""
    precision = "fp32" if args.device == "cpu" else "fp16"
    return (
        f"{machine(args.device == 'cpu')}\n\n{args.size} model of random weights, "
        f"{args.resolution} x {args.resolution} pixels, {precision} unless the row says "
        f"otherwise; {args.steps} steps in each of {args.rounds} rounds after a warm-up."
    )
