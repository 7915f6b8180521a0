"""How a run executes its steps: attention, gradient checkpointing, compilation, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from .base_model import BaseModel
from .batches import Batch
from .checkpoint import TrainingState
from .cpu import fp32_attention_context_fn
from .cuda_graphs import CudaGraphCapturer, GraphedForwardBackward
from .fused_backward import FusedBackward
from .gpu_capabilities import supports_cuda_graphs
from .memory import is_out_of_memory
from .memory_tiers import Tier
from .optional_packages import import_error
from .packages import is_installed
from .recipe import LoRA, Recipe
from .run import Run
from .step import ForwardBackward, Learner, forward_backward, unwrap_compiled

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def maybe_compile_unet(run: Run, base: BaseModel) -> Any:
    """The UNet, compiled if the recipe asks for it; notes it if that does not work."""
    if not run.recipe.compute.compile:
        return base.unet
    if run.accelerator.device.type == "cuda" and not is_installed("triton"):
        run.note(
            "compute.compile is not used: it needs Triton (on Windows the package triton-windows)."
        )
        return base.unet
    try:
        try_compile(run.accelerator.device)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # No compiler, no Python headers, or a GPU that Triton does not support.
        run.note(f"compute.compile does not work here and is not used. ({error!r:.200})")
        return base.unet
    return torch.compile(base.unet)


def try_compile(device: torch.device) -> None:
    """Compiles a layer and runs it forward and backward; raises what the compiler raises."""
    layer = torch.nn.Linear(8, 8, device=device)
    torch.compile(layer)(torch.ones(2, 8, device=device)).sum().backward()


def enable_xformers(run: Run, base: BaseModel) -> None:
    """Enables xformers attention in the UNet, or notes that it does not work."""
    if run.accelerator.device.type != "cuda":
        run.note("xformers attention needs a CUDA GPU; PyTorch's attention is used.")
        return
    from diffusers.models.attention_processor import XFormersAttnProcessor

    try:
        if lack := import_error("xformers"):
            raise ImportError(f"it {lack}")
        try_xformers(DTYPES[run.precision], run.accelerator.device)
        # Not enable_xformers_memory_efficient_attention, which probes fp32: GPUs of compute
        # capability 12 (RTX 50) have no such kernel.
        base.unet.set_attn_processor(XFormersAttnProcessor())
    except Exception as error:
        if is_out_of_memory(error):
            raise
        # Built for another PyTorch or other GPUs.
        run.note(
            f"xformers attention does not work here; PyTorch's attention is used. ({error!r:.200})"
        )


def try_xformers(dtype: torch.dtype, device: torch.device) -> None:
    """Compares SD 1.5's attention, forward and backward, with PyTorch's.

    Raises what xformers raises, and AssertionError for wrong results: kernels built for other GPUs
    may run without an error.
    """
    from xformers.ops import memory_efficient_attention

    random = torch.Generator(device).manual_seed(0)
    for width in (40, 80, 160):  # of a head
        shape = (1, 64, 2, width)  # sample, position, head, width
        states = torch.randn(shape, generator=random, device=device, dtype=dtype)
        states.requires_grad_()
        found = memory_efficient_attention(states, states, states)
        swapped = states.transpose(1, 2)
        right = scaled_dot_product_attention(swapped, swapped, swapped).transpose(1, 2)
        weights = torch.randn(shape, generator=random, device=device, dtype=dtype)
        gradients = [torch.autograd.grad((one * weights).sum(), states) for one in (found, right)]
        torch.testing.assert_close(found, right, rtol=0.05, atol=0.05)
        torch.testing.assert_close(*gradients, rtol=0.1, atol=0.1)


def enable_gradient_checkpointing(base: BaseModel, recipe: Recipe) -> None:
    """Enables gradient checkpointing in the UNet and, if trained, the text encoder."""
    # Restoring the RNG state reads it from the GPU, which no graph can; only dropout needs it.
    random = isinstance(recipe.method, LoRA) and recipe.method.dropout > 0
    settings: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": random}
    if base.unet.device.type == "cpu":
        settings["context_fn"] = fp32_attention_context_fn
    base.unet.enable_gradient_checkpointing(partial(checkpoint, **settings))
    text_encoder = base.text_encoder
    if recipe.text_encoder.train and text_encoder.device == base.unet.device:
        # transformers 5 renamed it.
        new = getattr(text_encoder, "activation_checkpointing_enable", None)
        (new or text_encoder.gradient_checkpointing_enable)(settings)


def build_forward_backward(
    run: Run, learner: Learner, state: TrainingState, tier: Tier, *, graphed: bool
) -> ForwardBackward:
    """Builds what accumulates a micro-batch's gradients (or also updates, in the lowest tier)."""
    if tier.in_backward:
        return FusedBackward(learner, state.optimizer, run.recipe.optimizer.max_grad_norm)
    plain = partial(forward_backward, learner, state.scaler)
    parameters = list(state.parameters.values())
    if run.recipe.compute.compile:
        return CompiledForwardBackward(plain, learner, parameters, run.note)
    if not graphed:
        return plain
    return GraphedForwardBackward(learner, state.scaler, parameters, CudaGraphCapturer(), run.note)


class CompiledForwardBackward:
    """`plain`, falling back to the uncompiled UNet if the first step fails: `try_compile` tests
    one layer, but the whole model is compiled on its first call.
    """

    def __init__(
        self,
        plain: ForwardBackward,
        learner: Learner,
        parameters: list[Parameter],
        notice: Callable[[str], None],
    ) -> None:
        self._forward_backward, self._learner, self._notice = plain, learner, notice
        self._parameters: list[Parameter] | None = parameters  # None after the first step

    def __call__(self, batch: Batch) -> Tensor:
        if self._parameters is None:
            return self._forward_backward(batch)
        parameters, self._parameters = self._parameters, None
        unet = unwrap_compiled(self._learner.unet)
        try:
            return self._forward_backward(batch)
        except Exception as error:
            if is_out_of_memory(error) or unet is self._learner.unet:
                raise
            self._notice(f"compute.compile fails on this model and is not used. ({error!r:.200})")
        for parameter in parameters:
            parameter.grad = None
        self._learner.unet = unet
        return self._forward_backward(batch)


def can_capture_graphs(run: Run, tier: Tier) -> bool:
    """Whether steps are captured as CUDA graphs; notes why not."""
    recipe, device = run.recipe, run.accelerator.device
    if device.type != "cuda" or not recipe.compute.graphs:
        return False
    reasons = {
        "on AMD GPUs a failed capture may go unnoticed": not supports_cuda_graphs(device),
        "method.dropout needs new random numbers at each step": isinstance(recipe.method, LoRA)
        and recipe.method.dropout > 0,
        "compute.compile already launches few kernels": recipe.compute.compile,
        f"memory tier {tier.name!r} updates weights in the backward pass": tier.in_backward,
    }
    for reason, applies in reasons.items():
        if applies:
            run.note(f"CUDA graphs are not used, so steps are slower: {reason}.")
            return False
    return True
