"""Disables single optimisations of our trainer in the calling process, which is `worker.py`'s.

The trainer has no switches for optimisations that always help, so its functions are replaced here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def no_latent_cache() -> None:
    """Images are encoded by the VAE in every step."""
    from likeness.trainers import dataset, latents

    @dataclass(frozen=True)
    class EncodedImage:
        vae: Any
        item: Any
        device: Any

        def read(self) -> latents.Latents:
            self.vae.to(self.device)  # a run offloads it before its first step
            return latents.encode(self.vae, self.item.pixels()[None], self.device)[0]

    def encode_images(vae: Any, items: Any, *, device: Any, **_: Any) -> list[EncodedImage]:
        return [EncodedImage(vae, item, device) for item in items]

    dataset.encode_images = encode_images


def no_prompt_reuse() -> None:
    """Prompts are encoded by a frozen text encoder in every step."""
    import torch
    from likeness.trainers import loop
    from likeness.trainers.step import PromptEncoder
    from likeness.trainers.text_encoding import encode_text

    @torch.no_grad()
    def encode(self: PromptEncoder, prompts: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return encode_text(self.text_encoder, self.ids[prompts], self.clip_skip)[rows]

    PromptEncoder.encode = encode
    loop.offload_text_encoder = lambda recipe, base: None


def no_embedding_cache() -> None:
    """Each run encodes its prompts again with a frozen text encoder."""
    from likeness.trainers import loop

    loop.open_embedding_cache = lambda run, text_encoder, ids: None


def split_prior_batch() -> None:
    """A photograph and its class image go through the UNet separately."""
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
    """8-bit Adam synchronises with the GPU after each weight, as in bitsandbytes."""
    from bitsandbytes.optim import optimizer
    from likeness.trainers import loop

    build, wait = loop.build_optimizer, optimizer.sync_gpu

    def built(*args: Any) -> Any:
        made = build(*args)
        optimizer.sync_gpu = wait
        return made

    loop.build_optimizer = built


def plain_convolutions() -> None:
    """Small convolutions on a CPU use PyTorch's implementation."""
    from likeness.trainers import cpu

    cpu.use_im2col_convs = lambda model: None


def transposed_weights() -> None:
    """Products with few pixels use transposed weights in the backward pass."""
    from likeness.trainers import cpu

    cpu.FEW_PIXELS = 0


def multithreaded_update() -> None:
    """All threads update a LoRA's small tensors."""
    from likeness.trainers import loop

    loop.limited_threads = lambda parameters: nullcontext()


def attention_in_run_dtype() -> None:
    """Attention on a CPU runs in the run's dtype."""
    from likeness.trainers import step

    step.attention_in_fp32 = nullcontext


def unfused_adamw() -> None:
    """AdamW neither fused nor foreach."""
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
    """The UNet uses the channels-last memory format, which the trainer does not."""
    import torch
    from likeness.trainers import loop

    load = loop.load

    def loaded(run: Any) -> Any:
        base = load(run)
        base.unet.to(memory_format=torch.channels_last)
        return base

    loop.load = loaded


def no_mmap() -> None:
    """A checkpoint is read into memory completely instead of being mapped."""
    from likeness.trainers import weights
    from safetensors.torch import load

    weights.load_file = lambda path: load(Path(path).read_bytes())


def no_digest_cache() -> None:
    """Every run hashes the base again."""
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
