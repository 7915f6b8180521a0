"""Merges LoRA files into a model's weights: what ComfyUI's patches compute, without ComfyUI.

Besides LoRA and DoRA, plain differences of weights and biases, which ComfyUI's own Train LoRA and
Extract and Save Lora write for layers without matrices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from . import ldm_names
from .adapter_names import (
    COMFYUI_PREFIX_TEXT_ENCODER,
    LORA_PREFIX_TEXT_ENCODER,
    LYCORIS_FAMILIES,
    MAGNITUDE,
    UNUSED_MODULE,
    group_by_module,
    guess_family,
    list_names,
)
from .dora import comfyui_dora_scale, lora_delta, lora_scale, row_norms
from .errors import AdapterError
from .lora_layers import file_names

_PAIR = {"lora_down.weight", "lora_up.weight"}
_LORA_KEYS = _PAIR | {"alpha", "dora_scale", MAGNITUDE}
# Plain differences, of a weight and of a bias; those of norms have names of their own in LyCORIS.
_OF_WEIGHT, _OF_BIAS = ("diff", "w_norm"), ("diff_b", "b_norm")
_TEXT_PREFIXES = (LORA_PREFIX_TEXT_ENCODER, COMFYUI_PREFIX_TEXT_ENCODER)

Adapter = Mapping[str, Tensor]  # of one module, by what follows its name


@dataclass(frozen=True)
class _Layer:
    weight: Tensor
    bias: Tensor | None


@torch.no_grad()
def merge(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tensors: Mapping[str, Tensor],
    strength_unet: float = 1.0,
    strength_text: float = 1.0,
) -> None:
    """Merges an adapter (`adapter.load_adapter`) into the weights, in fp32, as ComfyUI would.

    Raises AdapterError, and changes nothing, if any tensor does not fit these models.
    """
    layers = dict(_layers(unet, text_encoder))
    adapters = group_by_module(tensors)
    adapters.pop(UNUSED_MODULE, None)
    _check_compatible(adapters, layers, tensors)
    for module, adapter in adapters.items():
        strength = strength_text if module.startswith(_TEXT_PREFIXES) else strength_unet
        _merge_module(layers[module], adapter, strength)


def _layers(
    unet: UNet2DConditionModel, text_encoder: CLIPTextModel
) -> Iterator[tuple[str, _Layer]]:
    """The modules that have a weight, under each name that a file may have for them."""
    table = ldm_names.unet_names(unet.config)
    for part, model in (("unet", unet), ("text_encoder", text_encoder)):
        for path, module in model.named_modules():
            weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
            if not isinstance(weight, Tensor):
                continue
            layer = _Layer(weight, bias if isinstance(bias, Tensor) else None)
            kohya, *others = file_names(part, path, table)
            if part == "unet" or isinstance(module, nn.Linear):  # as ComfyUI has them
                yield kohya, layer
            yield from ((name, layer) for name in others)


def _merge_module(layer: _Layer, adapter: Adapter, strength: float) -> None:
    if adapter.keys() >= _PAIR:
        layer.weight.copy_(merged_weight(layer.weight.float(), adapter, strength))
    for endings, tensor in ((_OF_WEIGHT, layer.weight), (_OF_BIAS, layer.bias)):
        for change in (adapter[ending] for ending in endings if ending in adapter):
            assert tensor is not None, "checked before"
            tensor.copy_(tensor.float() + strength * change.to(tensor.device, torch.float32))


def _check_compatible(
    adapters: Mapping[str, Adapter], layers: Mapping[str, _Layer], tensors: Mapping[str, Tensor]
) -> None:
    bad, seen = [], set[int]()
    for module, adapter in adapters.items():
        layer = layers.get(module)
        # A second name of a layer would be merged on top of the first.
        if layer is None or id(layer) in seen or not _is_compatible(layer, adapter):
            bad += [f"{module}.{ending}" for ending in adapter]
        seen.add(id(layer))
    if bad or not tensors:
        family = guess_family({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        if family in LYCORIS_FAMILIES:
            raise AdapterError(
                f"The adapter is a {family}, which only ComfyUI loads: use Load Adapter."
            )
        raise AdapterError(
            f"The adapter does not fit this model: {len(bad)} of its {len(tensors)} tensors match "
            f"no layer of it ({list_names(bad)}). It looks like: {family}. "
            "Choose a plain LoRA or DoRA that was made for this model's family."
        )


def _is_compatible(layer: _Layer, adapter: Adapter) -> bool:
    of_weight, of_bias = (
        [adapter[ending] for ending in endings if ending in adapter]
        for endings in (_OF_WEIGHT, _OF_BIAS)
    )
    lora = {e: t for e, t in adapter.items() if e not in (*_OF_WEIGHT, *_OF_BIAS)}
    return (
        len(of_weight) + bool(lora) <= 1
        and len(of_bias) <= 1
        and not ("b_norm" in adapter and "w_norm" not in adapter)  # which ComfyUI ignores
        and (not lora or _is_compatible_lora(layer.weight, lora))
        and all(t.shape == layer.weight.shape for t in of_weight)
        and all(layer.bias is not None and t.shape == layer.bias.shape for t in of_bias)
    )


def _is_compatible_lora(weight: Tensor, adapter: Adapter) -> bool:
    if weight.ndim < 2 or not (adapter.keys() >= _PAIR and adapter.keys() <= _LORA_KEYS):
        return False
    down, up = adapter["lora_down.weight"], adapter["lora_up.weight"]
    out, *rest = weight.shape
    columns = math.prod(rest)
    scale = adapter.get("dora_scale")
    magnitude = adapter.get(MAGNITUDE)
    return (
        down.ndim >= 2
        and down.shape[0] > 0
        and down[0].numel() == columns
        and up.numel() == out * down.shape[0] == up.shape[0] * down.shape[0]
        and (scale is None or _dora_scale_axis(scale, weight) is not None)
        and (magnitude is None or magnitude.numel() == out)
        and ("alpha" not in adapter or adapter["alpha"].numel() == 1)
    )


def _dora_scale_axis(scale: Tensor, weight: Tensor) -> int | None:
    """The axis of `weight` that a dora_scale scales: 0 output, 1 input, None neither."""
    first = scale.shape[0] if scale.ndim else 0
    axis = 0 if first == weight.shape[0] else 1
    return axis if scale.numel() == weight.shape[axis] else None


def merged_weight(weight: Tensor, adapter: Adapter, strength: float) -> Tensor:
    """The weight (out, in, …) with one module's matrices merged; strength 1 is as trained.

    Linear in `strength`, also for DoRA, whose scale may be on the output or the input axis
    (LyCORIS has both). A scale of PEFT's own kind (`dora.MAGNITUDE`) is converted.
    """
    tensors = {ending: t.to(weight.device, torch.float32) for ending, t in adapter.items()}
    down, up = tensors["lora_down.weight"], tensors["lora_up.weight"]
    delta = lora_delta(weight, down, up, lora_scale(tensors))
    scale = tensors.get("dora_scale")
    if MAGNITUDE in tensors:
        scale = comfyui_dora_scale(weight, delta, tensors[MAGNITUDE])
    if scale is None:
        return weight + strength * delta
    tuned = weight + delta
    if _dora_scale_axis(scale, weight) == 0:
        norms = row_norms(weight)
    else:
        norms = row_norms(tuned.transpose(0, 1)).transpose(0, 1)  # (1, in, …)
    tuned *= scale.view_as(norms) / (norms + torch.finfo(torch.float32).eps)
    return torch.lerp(weight, tuned, strength)
