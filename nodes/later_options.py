"""Options of Train Options that came later: speed, files on the way, timesteps, captions, TF32."""

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
                tooltip="How much memory training may take. auto: the fastest way that fits; full: "
                "full speed; checkpointing: activations are computed twice; 8bit: and 8-bit Adam; "
                "in_backward: and no gradients are kept. The last two are for DreamBooth, and not "
                "with prodigy; 8bit not with adamw8bit, which the optimizer auto is where "
                "bitsandbytes is installed.",
            ),
            "compute",
            "memory",
        ),
        Option(
            io.Boolean.Input(
                "cuda_graphs",
                extra_dict=ADVANCED,
                default=True,
                tooltip="Starts a step's thousands of kernels at once, on a CUDA GPU.",
            ),
            "compute",
            "graphs",
        ),
        Option(
            io.Boolean.Input(
                "compile",
                extra_dict=ADVANCED,
                default=False,
                tooltip="torch.compile: minutes before the first step, for long trainings.",
            ),
            "compute",
            "compile",
        ),
    ]


def saving() -> list[Option]:
    """Files of what is learned so far."""
    return [
        Option(
            int_widget(
                "save_adapter_every",
                0,
                0,
                1_000_000,
                "Steps between files of what is learned so far, to be compared: a line "
                "'adapter_1 @ steps' in Matrix draws a row of each. 0: at the end only. A file of "
                "DreamBooth has 2 GB.",
            ),
            "saving",
            "adapters_every",
        ),
    ]


def timesteps() -> list[Option]:
    """The range of noise that is learned from."""

    def widget(id: str, default: int, minimum: int, maximum: int, tip: str) -> io.Input:
        return int_widget(id, default, minimum, maximum, tip, extra_dict=ADVANCED)

    low = widget("timestep_min", 0, 0, 999, "The least noise, 0 to 999.")
    high = widget(
        "timestep_max",
        1000,
        1,
        1000,
        "Below this is the most noise, which decides what is where. On the bundled miniature 700 "
        "kept more of what prompts ask for, and learned less of the subject.",
    )
    return [
        Option(low, "objective", "timestep_min"),
        Option(high, "objective", "timestep_max"),
    ]


def captions() -> list[Option]:
    """How prompts are shown."""
    return [
        Option(
            float_widget(
                "caption_dropout",
                0.0,
                0.0,
                0.99,
                0.01,
                "The share of pictures that are shown without their prompt, so that "
                "guidance keeps its other half; 0.05 to 0.1 is usual for many photographs, 0 is "
                "off.",
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
                tooltip="Prompts and captions are cut after this many tokens; a word has one or "
                "more. Beyond 75 they are read in chunks of 75, as ComfyUI does when it draws.",
            ),
            "text_encoder",
            "max_tokens",
            int,
        ),
    ]


def arithmetic() -> list[Option]:
    """How fp32 numbers are multiplied."""
    return [
        Option(
            io.Boolean.Input(
                "tf32",
                default=False,
                extra_dict=ADVANCED,
                tooltip="With precision fp32: faster matrix products on NVIDIA GPUs since Ampere "
                "(RTX 30), with 10 bits of mantissa instead of 23.",
            ),
            "compute",
            "tf32",
        ),
    ]
