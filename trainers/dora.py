"""What ComfyUI and PEFT store of a DoRA (arXiv:2402.09353), and what turns one into the other.

PEFT stores the magnitude m of each output row and computes m (W + ΔW) / ‖W + ΔW‖; ComfyUI stores a
scale s and computes s (W + ΔW) / ‖W‖.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .adapter_names import MAGNITUDE, group_by_module


def row_norms(weight: Tensor) -> Tensor:
    """Norm of each output row of (out, in, …), in shape (out, 1, …)."""
    return torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)


def lora_delta(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """The change of a weight (out, in, …): scale · up · down, in its shape."""
    return scale * (up.flatten(1) @ down.flatten(1)).view_as(weight)


def comfyui_dora_scale(weight: Tensor, delta: Tensor, magnitude: Tensor) -> Tensor:
    """ComfyUI's scale (out, 1, …) of a weight (out, in, …) for PEFT's magnitude, out values."""
    norms = row_norms(weight)
    return magnitude.float().view_as(norms) * norms / row_norms(weight + delta)


def peft_magnitude(weight: Tensor, delta: Tensor, adapter: Mapping[str, Tensor]) -> Tensor:
    """PEFT's magnitude (out, 1, …) of a weight (out, in, …) and one module's tensors in a file.

    Its DoRA then computes what the file does, a plain LoRA included. `delta` is the change by the
    matrices; a ``dora_scale`` is ComfyUI's, in shape (out, 1, …).
    """
    norms = row_norms(weight + delta)
    if MAGNITUDE in adapter:
        return adapter[MAGNITUDE].float().view_as(norms)
    if "dora_scale" in adapter:
        return adapter["dora_scale"].float() * norms / row_norms(weight)
    return norms


def lora_scale(adapter: Mapping[str, Tensor]) -> float:
    """alpha / rank of one module's tensors; alpha is the rank if there is none."""
    rank = len(adapter["lora_down.weight"])
    return float(adapter["alpha"]) / rank if "alpha" in adapter else 1.0


@torch.no_grad()
def to_comfyui(
    tensors: Mapping[str, Tensor], weight_of: Callable[[str], Tensor]
) -> dict[str, Tensor]:
    """The tensors of a LoRA file with ComfyUI's scales in place of PEFT's magnitudes.

    `weight_of` gives the base's weight (out, in, …) of a module; the shapes must fit it.
    """
    converted = dict(tensors)
    for module, adapter in group_by_module(tensors).items():
        if MAGNITUDE not in adapter:
            continue
        down, up = (adapter[f"lora_{part}.weight"].float() for part in ("down", "up"))
        weight = weight_of(module).detach().to(down.device, torch.float32)
        delta = lora_delta(weight, down, up, lora_scale(adapter))
        magnitude = converted.pop(f"{module}.{MAGNITUDE}")
        converted[f"{module}.dora_scale"] = comfyui_dora_scale(weight, delta, magnitude)
    return converted
