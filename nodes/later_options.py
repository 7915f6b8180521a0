"""The options of Train Options that are younger than the others: speed, and files on the way."""

from __future__ import annotations

from ..trainers.tiers import TIERS
from .host import io
from .option import Option
from .recipes import AUTO


def speed() -> list[Option]:
    """Memory tier, CUDA graphs, torch.compile."""
    return [
        Option(
            io.Combo.Input(
                "memory",
                options=[AUTO, *(tier.name for tier in TIERS)],
                default=AUTO,
                tooltip="How much memory training may take; auto: the fastest way that fits.",
            ),
            "compute",
            "memory",
        ),
        Option(
            io.Boolean.Input(
                "cuda_graphs",
                default=True,
                tooltip="Starts a step's thousands of kernels at once, on a CUDA GPU.",
            ),
            "compute",
            "graphs",
        ),
        Option(
            io.Boolean.Input(
                "compile",
                default=False,
                tooltip="torch.compile: minutes before the first step, for long trainings.",
            ),
            "compute",
            "compile",
        ),
    ]


def on_the_way() -> list[Option]:
    """Files of what is learned so far."""
    return [
        Option(
            io.Int.Input(
                "save_adapter_every",
                default=0,
                min=0,
                max=1_000_000,
                tooltip="Steps between files of what is learned so far, to be compared: a line "
                "'adapter_1 @ steps' in Matrix draws a row of each. 0: at the end only. A file of "
                "DreamBooth has 2 GB.",
            ),
            "saving",
            "adapters_every",
        ),
    ]
