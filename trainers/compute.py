"""How a run executes its steps: memory tier, gradient checkpointing, compilation, CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from . import memory_tiers
from .base_model import BaseModel
from .batches import Batch
from .checkpoint import TrainingState
from .cpu import fp32_attention_context_fn
from .cuda_graphs import CudaGraphCapturer, GraphedForwardBackward
from .errors import OptimizerMismatch, OutOfMemory
from .fused_backward import FusedBackward
from .gpu_capabilities import has_bf16, supports_cuda_graphs
from .memory import is_out_of_memory
from .memory_tiers import ModelSize, Tier
from .optimizers import eight_bit_error
from .optional_packages import import_error
from .packages import eight_bit_unavailable_reason, is_installed
from .recipe import DreamBooth, LoRA, Recipe
from .run import Run
from .run_folder import resumable_runs
from .step import ForwardBackward, Learner, forward_backward, unwrap_compiled
from .tokenizer import CHUNK_TOKENS

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def detect_machine(
    recipe: Recipe, precision: str, accelerator: Accelerator
) -> memory_tiers.Machine:
    """Properties of this machine that decide which memory tiers a recipe can use."""
    return memory_tiers.Machine(
        precision=precision,
        has_bf16=has_bf16(accelerator.device),
        processes=accelerator.num_processes,
        # Tested only if it matters: a build for other GPUs may crash the process.
        bitsandbytes=isinstance(recipe.method, DreamBooth) and has_8bit_adam(accelerator.device),
    )


def has_8bit_adam(device: torch.device) -> bool:
    """Whether 8-bit Adam is installed and works."""
    return eight_bit_unavailable_reason() is None and eight_bit_error(device) is None


def check_tier(run: Run) -> None:
    """Checks, before the base is loaded, that the run has a memory tier.

    Raises RecipeError if the recipe's tier cannot be used here, and OptimizerMismatch if none can
    resume from the existing state.
    """
    _candidate_tiers(run, _previous_tier(run))


def _candidate_tiers(run: Run, before: Tier | None) -> list[Tier]:
    """Available tiers that can resume from the state of tier `before`, fastest first."""
    found = memory_tiers.available(
        run.recipe, detect_machine(run.recipe, run.precision, run.accelerator)
    )
    fitting = [
        t
        for t in found
        if before is None or memory_tiers.is_state_compatible(t, before, run.recipe)
    ]
    if before is not None and not fitting:
        raise OptimizerMismatch(memory_tiers.incompatible_state_message(before, run.recipe))
    return fitting


def choose_tier(
    run: Run, base: BaseModel, parameters: Mapping[str, Parameter], chunks: int = 1
) -> Tier:
    """Chooses the tier used before by the run or the one it continues, else the fastest that fits.

    It is saved with the run. Raises as `check_tier`.
    """
    before, note = _previous_tier(run), None
    choice, taken = (
        _candidate_tiers(run, before),
        (memory_tiers.load_tier(run.folder.tier_file), before),
    )
    tier = next((one for one in taken if one in choice), None)
    if tier is None:
        size = model_size(run.recipe, base, parameters, chunks)
        free = free_memory(run.accelerator)
        tier, note = memory_tiers.select_tier(choice, run.recipe, run.precision, size, free)
    if note:
        run.note(note)
    if run.accelerator.is_main_process:
        memory_tiers.save_tier(run.folder.tier_file, tier)
    run.tier = tier
    return tier


def check_memory(run: Run, base: BaseModel) -> None:
    """Raises OutOfMemory if a GPU cannot hold a full fine-tune in any tier, before class images
    are drawn.
    """
    recipe, accelerator = run.recipe, run.accelerator
    if not isinstance(recipe.method, DreamBooth) or accelerator.device.type != "cuda":
        return
    parts = [base.unet, *([base.text_encoder] if recipe.text_encoder.train else [])]
    parameters = {f"{k}.{name}": p for k, part in enumerate(parts)
                  for name, p in part.named_parameters()}  # fmt: skip
    why = memory_tiers.no_fit_reason(
        recipe,
        detect_machine(recipe, run.precision, accelerator),
        model_size(recipe, base, parameters, recipe.text_encoder.max_tokens // CHUNK_TOKENS),
        free_memory(accelerator),
    )
    if why is not None:
        raise OutOfMemory(why)


def _previous_tier(run: Run) -> Tier | None:
    """Tier of the checkpoint that a run starts from, its own or an earlier run's; None if none."""
    runs = (run.folder, *resumable_runs(run.recipe, run.places))
    return next(
        (memory_tiers.load_tier(one.tier_file) for one in runs if one.has_checkpoint()), None
    )


def model_size(
    recipe: Recipe, base: BaseModel, parameters: Mapping[str, Parameter], chunks: int
) -> ModelSize:
    """Size of a recipe's step with prompts of so many chunks.

    Images of other shapes have about as many pixels.
    """
    samples = recipe.schedule.batch * (2 if recipe.prior else 1)
    prompts = min(samples, recipe.schedule.batch + 1) if recipe.text_encoder.train else 0
    counts = [parameter.numel() for parameter in parameters.values()]
    return ModelSize(
        trained=sum(counts),
        largest=max(counts),
        unet=sum(parameter.numel() for parameter in base.unet.parameters()),
        pixels=samples * (recipe.subject.resolution // 8) ** 2,
        chunks=prompts * chunks,
    )


def free_memory(accelerator: Accelerator) -> int:
    """Bytes available to a run on its device: the minimum over all processes."""
    device = accelerator.device
    if device.type != "cuda":
        free = psutil.virtual_memory().available // accelerator.num_processes
    else:
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info()[0] + unused
    if accelerator.num_processes == 1:
        return free
    mine = torch.tensor(float(free), dtype=torch.float64, device=device)
    return int(accelerator.gather(mine).min())


def fall_back_to_lower_tier(run: Run) -> bool:
    """Selects the next lower tier after running out of memory; returns whether to restart in it.

    False before a tier is chosen: loading and encoding take the same memory in every tier.
    """
    before = run.tier
    if before is None or run.accelerator.num_processes > 1:  # the other processes wait for this one
        return False
    choice = memory_tiers.available(
        run.recipe, detect_machine(run.recipe, run.precision, run.accelerator)
    )
    lower = memory_tiers.next_lower_tier(before, choice)
    if lower is None or _would_break_resume(run, before, lower):
        return False
    memory_tiers.save_tier(run.folder.tier_file, lower)
    run.note(
        f"Memory tier {before.name!r} ran out of memory; the run restarts in tier "
        f"{lower.name!r}: {lower.description}."
    )
    return True


def _would_break_resume(run: Run, before: Tier, lower: Tier) -> bool:
    """Whether a lower tier's optimizer cannot resume from the existing checkpoint; notes it."""
    folders = [run.folder, *resumable_runs(run.recipe, run.places)]
    same = memory_tiers.is_state_compatible(lower, before, run.recipe)
    if same or not any(folder.has_checkpoint() for folder in folders):
        return False
    run.note(
        f"Memory tier {lower.name!r} needs less memory, but its optimizer cannot resume from this "
        "run's checkpoint. Free some memory to resume, or train from the start with "
        f"compute.memory {lower.name}."
    )
    return True


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
    try:
        if lack := import_error("xformers"):
            raise ImportError(f"it {lack}")
        try_xformers(DTYPES[run.precision], run.accelerator.device)
        base.unet.enable_xformers_memory_efficient_attention()
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
    if recipe.text_encoder.train:
        text_encoder = base.text_encoder
        # transformers 5 renamed it.
        new = getattr(text_encoder, "activation_checkpointing_enable", None)
        (new or text_encoder.gradient_checkpointing_enable)(settings)


def build_forward_backward(
    run: Run, learner: Learner, state: TrainingState, tier: Tier, *, graphed: bool
) -> ForwardBackward:
    """Builds what accumulates a micro-batch's gradients (or also updates, in the lowest tier)."""
    if tier.in_backward:
        return FusedBackward(learner, state.optimizer, run.recipe.optimizer.clip_norm)
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
