"""The options of Train Options that decide how fast, and in how much memory, a run computes."""

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
