"""The last widgets of Train Options: speed, intermediate files, timesteps, captions, TF32."""

from __future__ import annotations

from ..trainers.memory_tiers import TIERS
from .host import ADVANCED, io
from .option import Option
from .recipe_builder import AUTO
from .widgets import float_widget, int_widget


def speed() -> list[Option]:
    """Memory tier, CUDA graphs, torch.compile."""
    return [
        Option(
            io.Combo.Input(
                "memory",
                options=[AUTO, *(tier.name for tier in TIERS)],
                default=AUTO,
                tooltip="Memory tier. auto: the fastest that fits; full: full speed; "
                "checkpointing: recomputes activations; 8bit: adds 8-bit Adam; in_backward: also "
                "keeps no gradients; offload: also trains the text encoder on the CPU. The last "
                "three are for DreamBooth, and not with prodigy; 8bit also not with adamw8bit, "
                "which optimizer 'auto' means where bitsandbytes is installed.",
            ),
            "compute",
            "memory",
        ),
        Option(
            io.Boolean.Input(
                "cuda_graphs",
                extra_dict=ADVANCED,
                default=True,
                tooltip="Launches a step's thousands of kernels at once. CUDA GPUs only.",
            ),
            "compute",
            "graphs",
        ),
        Option(
            io.Boolean.Input(
                "compile",
                extra_dict=ADVANCED,
                default=False,
                tooltip="torch.compile: takes minutes before the first step; for long runs.",
            ),
            "compute",
            "compile",
        ),
    ]


def saving() -> list[Option]:
    """Intermediate adapter files."""
    return [
        Option(
            int_widget(
                "save_adapter_every",
                0,
                0,
                1_000_000,
                "Steps between intermediate adapter files, to compare: the line 'adapter_1 @ "
                "steps' in Matrix makes a row of each. 0: only at the end. DreamBooth: 2 GB each.",
            ),
            "saving",
            "adapters_every",
        ),
    ]


def timesteps() -> list[Option]:
    """The range of timesteps to train on."""

    def widget(id: str, default: int, minimum: int, maximum: int, tip: str) -> io.Input:
        return int_widget(id, default, minimum, maximum, tip, extra_dict=ADVANCED)

    low = widget("timestep_min", 0, 0, 999, "Lowest timestep to train on (least noise), 0 to 999.")
    high = widget(
        "timestep_max",
        1000,
        1,
        1000,
        "Timesteps below this are trained on. The highest (most noise) decide the layout. On the "
        "bundled miniature, 700 followed prompts better and learned less of the subject.",
    )
    return [
        Option(low, "objective", "timestep_min"),
        Option(high, "objective", "timestep_max"),
    ]


def captions() -> list[Option]:
    """How captions are used."""
    return [
        Option(
            float_widget(
                "caption_dropout",
                0.0,
                0.0,
                0.99,
                0.01,
                "Fraction of images trained without their prompt, for the unconditional half "
                "of CFG; 0.05 to 0.1 is usual for many photographs, 0: off.",
            ),
            "objective",
            "caption_dropout",
        ),
        Option(
            io.Combo.Input(
                "max_tokens",
                options=["75", "150", "225"],
                default="75",
                extra_dict=ADVANCED,
                tooltip="Prompts and captions are truncated to this many tokens; a word is one or "
                "more tokens. Above 75, they are encoded in chunks of 75, as ComfyUI does.",
            ),
            "text_encoder",
            "max_tokens",
            int,
        ),
    ]


def arithmetic() -> list[Option]:
    """Precision of fp32 matrix products."""
    return [
        Option(
            io.Boolean.Input(
                "tf32",
                default=False,
                extra_dict=ADVANCED,
                tooltip="With precision fp32: faster matrix products on NVIDIA GPUs since Ampere "
                "(RTX 30), with a 10-bit mantissa instead of 23 bits. Convolutions use it anyway.",
            ),
            "compute",
            "tf32",
        ),
    ]
