"""Takes one optimisation out of our trainer, in the process that calls it; `worker.py` does.

The trainer has no switches for what is never better off, so its functions are replaced here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def no_latent_cache() -> None:
    """Pictures go through the VAE whenever a step sees them."""
    from likeness.trainers import dataset, latents

    @dataclass(frozen=True)
    class Picture:
        vae: Any
        item: Any
        device: Any

        def read(self) -> latents.Latents:
            self.vae.to(self.device)  # a run puts it away before its first step
            return latents.encode(self.vae, self.item.pixels()[None], self.device)[0]

    def encode_images(vae: Any, items: Any, *, device: Any, **_: Any) -> list[Picture]:
        return [Picture(vae, item, device) for item in items]

    dataset.encode_images = encode_images


def no_prompt_reuse() -> None:
    """Prompts go through a frozen text encoder in every step."""
    from likeness.trainers import loop
    from likeness.trainers.step import PromptEncoder

    PromptEncoder.freeze = lambda self: None
    loop.offload_text_encoder = lambda recipe, base: None


def no_embedding_cache() -> None:
    """Each run encodes the prompts of its frozen text encoder."""
    from likeness.trainers import loop

    loop.open_embedding_cache = lambda run, text_encoder, ids: None


def split_prior_batch() -> None:
    """A photograph and its class image go through the UNet one after the other."""
    from likeness.trainers import loop

    together = loop.step_samples

    def apart(*args: Any, **kwargs: Any) -> list[Any]:
        parts = []
        for batch in together(*args, **kwargs):
            for prior in (False, True):
                parts.append([sample for sample in batch if sample.prior is prior])
        return [part for part in parts if part]

    loop.step_samples = apart


def sync_after_each_weight() -> None:
    """8-bit Adam waits for the GPU as bitsandbytes has it."""
    from bitsandbytes.optim import optimizer
    from likeness.trainers import loop

    build, wait = loop.build_optimizer, optimizer.sync_gpu

    def built(*args: Any) -> Any:
        made = build(*args)
        optimizer.sync_gpu = wait
        return made

    loop.build_optimizer = built


def plain_convolutions() -> None:
    """Small convolutions on a CPU are PyTorch's own."""
    from likeness.trainers import cpu

    cpu.use_im2col_convs = lambda model: None


def transposed_weights() -> None:
    """Products of few pixels multiply by turned weights in the backward pass."""
    from likeness.trainers import cpu

    cpu.FEW_PIXELS = 0


def multithreaded_update() -> None:
    """All threads take part in the update of a LoRA's small tensors."""
    from likeness.trainers import loop

    loop.limited_threads = lambda parameters: nullcontext()


def attention_in_run_dtype() -> None:
    """Attention on a CPU computes in the precision of the run."""
    from likeness.trainers import step

    step.attention_in_fp32 = nullcontext


def unfused_adamw() -> None:
    """AdamW by many small operations."""
    from likeness.trainers import loop

    fused = loop.build_optimizer

    def build(*args: Any) -> Any:
        optimizer = fused(*args)
        optimizer._step_supports_amp_scaling = False
        for group in optimizer.param_groups:
            group |= {"fused": False, "foreach": False}
        return optimizer

    loop.build_optimizer = build


def channels_last() -> None:
    """Pictures lie channel by channel in memory: tried, and not used."""
    import torch
    from likeness.trainers import loop

    load = loop.load

    def loaded(run: Any) -> Any:
        base = load(run)
        base.unet.to(memory_format=torch.channels_last)
        return base

    loop.load = loaded


def no_mmap() -> None:
    """A checkpoint is read into memory before any of it is used."""
    from likeness.trainers import weights
    from safetensors.torch import load

    weights.load_file = lambda path: load(Path(path).read_bytes())


def no_digest_cache() -> None:
    """The base is read for its digest in every run."""
    from likeness.trainers import digests

    digests._read_cache = lambda cache: {}


PATCHES: dict[str, Callable[[], None]] = {
    patch.__name__: patch
    for patch in (
        no_latent_cache,
        no_prompt_reuse,
        no_embedding_cache,
        split_prior_batch,
        sync_after_each_weight,
        plain_convolutions,
        transposed_weights,
        multithreaded_update,
        attention_in_run_dtype,
        unfused_adamw,
        channels_last,
        no_mmap,
        no_digest_cache,
    )
}
