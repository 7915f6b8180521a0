"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) by peft, saved under kohya's names.

Variants: DoRA (Liu et al. 2024, arXiv:2402.09353) and rank-stabilised LoRA (Kalajdzievski 2023,
arXiv:2312.03732).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
from typing import cast

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn
from torch.nn import Parameter
from transformers import CLIPTextModel

from .adapter_names import file_alpha, module_name
from .dora import comfyui_dora_scale, lora_delta, lora_scale, peft_magnitude, row_norms
from .lora_layers import TARGETS
from .recipe import LoRA
from .rng import randn

ADAPTER = "default"  # peft's name for the only adapter


# Training.


def attach(
    unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None, method: LoRA, seed: int
) -> None:
    """Freezes the weights and injects fp32 adapters, which have no effect at first.

    A `text_encoder` of None gets none. The down projection is drawn from N(0, 1/rank²), as in
    diffusers' script, seeded by `seed` and the module's name: it is the same for every dtype and
    device of the base and every choice of targets. PyTorch's global RNG is left untouched.
    """
    unet_targets, text_targets = TARGETS[method.targets]
    for part, model, targets in (
        ("unet", unet, unet_targets),
        ("text_encoder", text_encoder, text_targets),
    ):
        if model is None:
            continue
        model.requires_grad_(False)
        with torch.random.fork_rng(devices=[]):  # peft initialises on the CPU
            inject_adapter_in_model(_configuration(method, targets), model, ADAPTER)
        for path, layer in _layers(model):
            _initialise(layer, seed, module_name(part, path))
            if _is_plain(layer, method):
                layer.forward = MethodType(_forward, layer)  # type: ignore[attr-defined]


def _configuration(method: LoRA, targets: list[str]) -> LoraConfig:
    return LoraConfig(
        r=method.rank,
        lora_alpha=method.rank if method.alpha is None else method.alpha,  # type: ignore[arg-type]
        lora_dropout=method.dropout,
        target_modules=targets,
        use_dora=method.dora,
        use_rslora=method.rslora,
    )


def _layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """The layers with an adapter, by their path in the model."""
    for path, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield path, module


def _adapter_weight(part: nn.ModuleDict) -> Parameter:
    """The weight of one part of a layer's adapter."""
    return cast(Parameter, part[ADAPTER].weight)


def _base_weight(layer: LoraLayer) -> Tensor:
    """The base layer's weight (out, in, …), in fp32."""
    return cast(Parameter, layer.get_base_layer().weight).float()


@torch.no_grad()
def _initialise(layer: LoraLayer, seed: int, name: str) -> None:
    down = _adapter_weight(layer.lora_A.float())
    down.copy_(randn(tuple(down.shape), seed, name) / layer.r[ADAPTER])
    layer.lora_B[ADAPTER].float()  # zeros
    if ADAPTER in layer.lora_magnitude_vector:
        # peft computes the norm in the base's dtype; in 16 bits that alone changes the weights.
        magnitude = _adapter_weight(layer.lora_magnitude_vector.float())
        magnitude.copy_(row_norms(_base_weight(layer)).view_as(magnitude))


@torch.no_grad()
def start_from(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel | None,
    method: LoRA,
    start: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """Gives fresh adapters the weights of a file (`lora_start.load_start`).

    The weights are then the base's with the file merged at strength 1, up to rounding: its alpha is
    converted to that of `method` in the up projection, and a lower rank is padded with zeros there.
    """
    scale = file_alpha(method) / method.rank
    for part, model in (("unet", unet), ("text_encoder", text_encoder)):
        for path, layer in _layers(model) if model is not None else ():
            if tensors := start.get(module_name(part, path)):
                _start_layer(layer, tensors, scale)


def _start_layer(layer: LoraLayer, tensors: Mapping[str, Tensor], scale: float) -> None:
    down, up = _adapter_weight(layer.lora_A), _adapter_weight(layer.lora_B)
    given = {ending: tensor.to(down.device, torch.float32) for ending, tensor in tensors.items()}
    given_down, given_up = given["lora_down.weight"], given["lora_up.weight"]
    rank, given_scale = len(given_down), lora_scale(given)
    down[:rank] = given_down.view_as(down[:rank])  # the others stay random, to be learned
    up.zero_()
    up[:, :rank] = given_up.view_as(up[:, :rank]) * (given_scale / scale)
    if ADAPTER in layer.lora_magnitude_vector:
        weight = _base_weight(layer)
        delta = lora_delta(weight, given_down, given_up, given_scale)
        magnitude = _adapter_weight(layer.lora_magnitude_vector)
        magnitude.copy_(peft_magnitude(weight, delta, given).view_as(magnitude))


def _is_plain(layer: LoraLayer, method: LoRA) -> bool:
    return isinstance(layer, Linear) and not method.dora and not method.dropout


def _forward(self: Linear, x: Tensor) -> Tensor:
    """W x + b + s B A x, like peft's own forward, in three matrix products.

    peft launches eight kernels: it casts x to fp32 and, under autocast, back, and multiplies and
    adds separately.
    """
    base = cast(nn.Linear, self.base_layer)
    output = F.linear(x, base.weight, base.bias)  # (…, out)
    if self.disable_adapters:
        return output
    down = F.linear(x, _adapter_weight(self.lora_A))  # (…, rank)
    up = _adapter_weight(self.lora_B).t()  # (rank, out)
    scale = self.scaling[ADAPTER]
    return torch.addmm(output.flatten(0, -2), down.flatten(0, -2), up, alpha=scale).view_as(output)


def trainable_parameters(
    unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None
) -> dict[str, Parameter]:
    """The adapters' parameters, by names that do not depend on library versions.

    ``unet.<module>.lora_down``, ``.lora_up`` and, for DoRA, ``.magnitude``, or with the prefix
    ``text_encoder.``; the module by kohya's name.
    """
    named = {}
    for part, model in (("unet", unet), ("text_encoder", text_encoder)):
        for path, layer in _layers(model) if model is not None else ():
            name = f"{part}.{module_name(part, path)}"
            named[f"{name}.lora_down"] = _adapter_weight(layer.lora_A)
            named[f"{name}.lora_up"] = _adapter_weight(layer.lora_B)
            if ADAPTER in layer.lora_magnitude_vector:
                named[f"{name}.magnitude"] = _adapter_weight(layer.lora_magnitude_vector)
    return named


@contextmanager
def adapters_disabled(model: nn.Module) -> Iterator[None]:
    """Disables the model's adapters."""
    layers = [layer for _, layer in _layers(model)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)  # makes them trainable again, too


# Files.


@torch.no_grad()
def export(
    unet: UNet2DConditionModel, text_encoder: CLIPTextModel | None, method: LoRA
) -> dict[str, Tensor]:
    """The adapters as a file's tensors under kohya's names, in fp32.

    For a module of weight (out, in, …): ``lora_down.weight`` (rank, in, …), ``lora_up.weight``
    (out, rank, 1…), ``alpha`` () and for DoRA ``dora_scale`` (out, 1, …).
    """
    alpha = file_alpha(method)
    tensors: dict[str, Tensor] = {}
    for part, model in (("unet", unet), ("text_encoder", text_encoder)):
        for path, layer in _layers(model) if model is not None else ():
            name = module_name(part, path)
            down, up = _adapter_weight(layer.lora_A), _adapter_weight(layer.lora_B)
            tensors[f"{name}.lora_down.weight"] = down
            tensors[f"{name}.lora_up.weight"] = up
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
            if ADAPTER in layer.lora_magnitude_vector:
                weight = _base_weight(layer)
                change = lora_delta(weight, down, up, alpha / method.rank)
                magnitude = _adapter_weight(layer.lora_magnitude_vector)
                tensors[f"{name}.dora_scale"] = comfyui_dora_scale(weight, change, magnitude)
    return {name: tensor.detach().float() for name, tensor in tensors.items()}
