"""One optimizer step: losses of its micro-batches, gradients, update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from transformers import CLIPTextModel

from . import objective
from .batches import Batch
from .cpu import attention_in_fp32
from .embeddings import EmbeddingCache
from .teacher import Teacher
from .text_encoding import encode_text


@dataclass
class PromptEncoder:
    """Encodes the run's prompts, by index.

    `embeddings` is set once the text encoder is frozen. Those of one that is never trained are
    kept in `cache` for later runs.
    """

    ids: Tensor  # (p, t)
    clip_skip: int
    text_encoder: CLIPTextModel
    cache: EmbeddingCache | None = None
    embeddings: Tensor | None = None  # (p, t, d)

    def freeze(self) -> None:
        """Encodes all prompts with the text encoder as it is, for use from then on."""
        self.text_encoder.eval()
        found = self.cache.read() if self.cache else None
        if found is not None:
            self.embeddings = found.to(self.ids.device)
            return
        with torch.no_grad():
            rows = [encode_text(self.text_encoder, row[None], self.clip_skip) for row in self.ids]
        self.embeddings = torch.cat(rows)
        if self.cache:
            self.cache.write(self.embeddings)

    def encode(self, prompts: Tensor, rows: Tensor) -> Tensor:
        """Embeddings (n, t, d) of a batch (`batches.Batch`); encodes each prompt once."""
        if self.embeddings is not None:
            return self.embeddings[prompts[rows]]
        return encode_text(self.text_encoder, self.ids[prompts], self.clip_skip)[rows]


@dataclass
class Learner:
    """The models of a run and their precision; without `autocast_dtype`, that of the weights."""

    unet: UNet2DConditionModel
    prompts: PromptEncoder
    alphas: Tensor  # (1000,), on the device
    prediction: str
    min_snr_gamma: float | None
    device: torch.device
    autocast_dtype: torch.dtype | None
    teacher: Teacher | None = None

    def freeze_prompts(self) -> None:
        """Encodes all prompts once; the text encoder is frozen from then on."""
        # Adapters are in fp32: beside 16-bit weights they work under autocast only.
        exact = self.prompts.text_encoder.dtype == torch.float32
        with nullcontext() if exact else self.autocast():
            self.prompts.freeze()

    @contextmanager
    def eval_mode(self, *, reencode_prompts: bool = False) -> Iterator[None]:
        """Disables dropout; `reencode_prompts` runs the text encoder even if it is frozen.

        Bypasses a compiled UNet, which would recompile for each new shape, for minutes.
        """
        unet, prompts = self.unet, self.prompts
        before = unet.training, prompts.text_encoder.training, prompts.embeddings
        self.unet = unwrap_compiled(unet)
        unet.eval()
        prompts.text_encoder.eval()
        prompts.embeddings = None if reencode_prompts else prompts.embeddings
        try:
            yield
        finally:
            self.unet = unet
            unet.train(before[0])
            prompts.text_encoder.train(before[1])
            prompts.embeddings = before[2]

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The autocast context of `autocast_dtype`; a no-op if it is None."""
        if self.autocast_dtype is None:
            yield
            return
        attention = attention_in_fp32() if self.device.type == "cpu" else nullcontext()
        # The cache would keep a copy of every weight through the forward pass, and never reuse it.
        cast = torch.autocast(self.device.type, self.autocast_dtype, cache_enabled=False)
        with cast, attention:
            yield


def unwrap_compiled(unet: Any) -> Any:
    """The UNet without the wrapper of `torch.compile`, sharing its weights."""
    return getattr(unet, "_orig_mod", unet)


def compute_losses(learner: Learner, batch: Batch) -> Tensor:
    """Losses (n,) fp32 of a micro-batch, each weighted by its noise level (min-SNR)."""
    timesteps, alphas, prediction = batch.timesteps, learner.alphas, learner.prediction
    noisy = objective.add_noise(batch.latents, batch.noise, timesteps, alphas)
    target = objective.prediction_target(batch.latents, batch.noise, timesteps, alphas, prediction)
    with learner.autocast():
        if learner.teacher is not None and batch.prior_count:
            photos = len(noisy) - batch.prior_count
            prompts = batch.prompts[batch.rows[photos:]]
            teacher_prediction = learner.teacher.predict(
                noisy[photos:], timesteps[photos:], prompts
            )
            target = torch.cat([target[:photos], teacher_prediction.to(target.dtype)])
        context = learner.prompts.encode(batch.prompts, batch.rows)  # (n, t, d)
        predicted = learner.unet(noisy, timesteps, encoder_hidden_states=context).sample
    losses = objective.sample_losses(predicted, target, batch.mask)
    return losses * objective.min_snr_weights(timesteps, alphas, learner.min_snr_gamma, prediction)


def forward_backward(learner: Learner, scaler: torch.amp.GradScaler, batch: Batch) -> Tensor:
    """Accumulates a micro-batch's gradients; returns (instance loss, prior loss), (2,) fp32.

    The result stays on the device, since reading it would synchronise.
    """
    losses = compute_losses(learner, batch) * batch.weights
    scaler.scale(losses.sum()).backward()
    return losses_by_kind(losses, batch)


def losses_by_kind(losses: Tensor, batch: Batch) -> Tensor:
    """(instance loss, prior loss), (2,), detached, from losses (n,)."""
    photos = len(losses) - batch.prior_count
    return torch.stack([losses[:photos].sum(), losses[photos:].sum()]).detach()


# `forward_backward` as `compute.build_forward_backward` builds it for a run's device.
ForwardBackward = Callable[[Batch], Tensor]


def accumulate_gradients(
    backward: ForwardBackward, batches: Iterable[Batch], device: torch.device
) -> Tensor:
    """Accumulates the gradients of a step's micro-batches; returns the sum of their losses (2,)."""
    total = torch.zeros(2, device=device)
    for batch in batches:
        total += backward(batch)
    return total


BUCKET_SIZE = 8 << 20  # values per all-reduce: 32 MB of fp32


def average_gradients(gradients: list[Tensor], accelerator: Accelerator) -> None:
    """Replaces each gradient by its mean over processes, many in one all-reduce."""
    for bucket in buckets(gradients, BUCKET_SIZE):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        mean = accelerator.reduce(flat, "mean")
        parts = mean.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def buckets(tensors: list[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Groups tensors, in order, into lists of up to `size` values; a larger tensor is alone."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > size:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def update(
    parameters: list[Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    max_grad_norm: float | None,
    accelerator: Accelerator,
    zero_in_place: bool = False,
) -> None:
    """Averages the gradients over processes, clips their global norm, steps, and clears them.

    `zero_in_place` keeps the gradient tensors, which CUDA graphs have captured.
    """
    if accelerator.num_processes > 1:
        average_gradients([p.grad for p in parameters if p.grad is not None], accelerator)
    if max_grad_norm is not None:
        scaler.unscale_(optimizer)
        clip_grad_norm_(parameters, max_grad_norm)
    scaler.step(optimizer)
    scaler.update()
    if zero_in_place:  # in one call, which not all optimizers do
        torch._foreach_zero_([p.grad for p in parameters if p.grad is not None])
    else:
        optimizer.zero_grad()
