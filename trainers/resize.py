"""LoRA files reduced to a lower rank.

The best approximation of a matrix by one of lower rank keeps its largest singular values and
their vectors (Eckart & Young 1936, doi:10.1007/BF02288367): here the given number for each module.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .adapter import OUTPUT_NAME_KEY, SCORES_KEY, load_adapter, read_metadata, save_adapter
from .adapter_metadata import NETWORK_ARGS_KEY
from .adapter_names import LORA_ADAPTER_METADATA_KEY, group_by_module, list_names
from .errors import AdapterError

if TYPE_CHECKING:
    from torch import Tensor

RESIZED_FROM_KEY = "likeness.resized_from"  # the trained rank
# Of a file of another rank; diffusers refuses alpha in its metadata beside alpha tensors.
_OUTDATED_KEYS = {SCORES_KEY, LORA_ADAPTER_METADATA_KEY, "sshs_legacy_hash"}


class Resized(NamedTuple):
    """`tensors` named as `load_adapter` does; `retained`, 0 to 1: the kept share of the changes'
    squared norm.
    """

    tensors: dict[str, Tensor]
    retained: float


def resize_file(path: Path, rank: int, to: Path) -> float:
    """Writes the LoRA file `path`, in any naming scheme, with at most `rank` to `to`.

    The matrices keep their dtype (bf16 becomes fp32), alpha becomes the rank. Metadata is kept,
    including the recipe that trained it, except scores. Returns the share of the squared norm of
    all changes that is kept, 0 to 1. Raises AdapterError if the file is not a plain LoRA, is
    damaged, or has no higher rank, OutputExists if `to` is another file, OutOfSpace.
    """
    import torch

    info, tensors = read_metadata(path), load_adapter(path)
    resized = resize(tensors, rank)
    before = max(len(t) for name, t in tensors.items() if name.endswith(".lora_down.weight"))
    if before <= rank:
        less = "choose a lower one" if before > 1 else "it cannot be lowered"
        raise AdapterError(f"{path} has rank {before}: {less}.")
    metadata = {k: v for k, v in info.metadata.items() if k not in _OUTDATED_KEYS}
    metadata |= {
        RESIZED_FROM_KEY: metadata.get(RESIZED_FROM_KEY, str(before)),
        OUTPUT_NAME_KEY: to.stem,
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(float(rank)),
    }
    if NETWORK_ARGS_KEY in metadata:
        metadata[NETWORK_ARGS_KEY] = _resized_args(metadata[NETWORK_ARGS_KEY], rank)
    matrices = [t for name, t in tensors.items() if name.endswith(".weight")]
    half = all(matrix.dtype == torch.float16 for matrix in matrices)
    save_adapter(to, resized.tensors, metadata, dtype="fp16" if half else "fp32")
    return resized.retained


def _resized_args(text: str, rank: int) -> str:
    """kohya's arguments with the convolutions' rank and alpha after resizing to `rank`."""
    try:
        args = json.loads(text)
        args |= {
            "conv_dim": (after := min(int(args["conv_dim"]), rank)),
            "conv_alpha": float(after),
        }
    except (ValueError, TypeError, LookupError, RecursionError):
        return text
    return json.dumps(args)


def resize(tensors: Mapping[str, Tensor], rank: int) -> Resized:
    """A LoRA (`adapter.load_adapter`) reduced to at most `rank` in each module, in fp32.

    For a module of weight (out, in, …) with s = alpha / its rank, s · up · down is approximated;
    both factors get the square roots of the singular values. Raises AdapterError for a rank below
    1, for DoRA, whose scales apply to the whole change, and for LyCORIS' kinds.
    """
    import torch

    if rank < 1:
        raise AdapterError(f"The rank must be at least 1, not {rank}.")
    modules = group_by_module(tensors)
    pair = {"lora_down.weight", "lora_up.weight"}
    bad = [
        name
        for name, parts in modules.items()
        if parts.keys() - {"alpha"} != pair or not _is_whole(parts)
    ]
    if bad or not modules:
        raise AdapterError(
            f"Only a plain LoRA can be resized; {len(bad)} of {len(modules)} modules are not plain "
            f"LoRA, or damaged ({list_names(bad)})."
        )
    made: dict[str, Tensor] = {}
    whole = retained = 0.0
    for module, parts in modules.items():
        down, up = parts["lora_down.weight"].double(), parts["lora_up.weight"].double()
        scale = float(parts.get("alpha", len(down))) / len(down)
        left, values, right = _svd(scale * up.flatten(1), down.flatten(1))
        whole += float(values.square().sum())
        values = values[:rank]
        retained += float(values.square().sum())
        n, roots = len(values), values.sqrt()
        narrow_up, narrow_down = left[:, :n] * roots, roots[:, None] * right[:n]
        made[f"{module}.lora_down.weight"] = narrow_down.view(n, *down.shape[1:]).float()
        made[f"{module}.lora_up.weight"] = narrow_up.view(len(up), n, *up.shape[2:]).float()
        made[f"{module}.alpha"] = torch.tensor(float(n))
    return Resized(made, retained / whole if whole else 1.0)


def _is_whole(parts: Mapping[str, Tensor]) -> bool:
    down, up = parts["lora_down.weight"], parts["lora_up.weight"]
    return (
        min(down.ndim, up.ndim) >= 2
        and up.shape[1] == len(down) > 0
        and ("alpha" not in parts or parts["alpha"].numel() == 1)
    )


def _svd(up: Tensor, down: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, Vᵀ of up · down, (out, r) and (r, in), by the SVD of only an r x r matrix."""
    import torch

    left, upper = torch.linalg.qr(up)
    right, lower = torch.linalg.qr(down.T)
    inner_left, values, inner_right = torch.linalg.svd(upper @ lower.T)
    return left @ inner_left, values, inner_right @ right.T
