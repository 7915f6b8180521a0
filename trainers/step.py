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
    """The run's prompts, by index. `embeddings` stand once the text encoder learns no more; those
    of one that never learns are `kept` for later runs.
    """

    ids: Tensor  # (p, t)
    clip_skip: int
    text_encoder: CLIPTextModel
    kept: EmbeddingCache | None = None
    embeddings: Tensor | None = None  # (p, t, d)

    def freeze(self) -> None:
        """Encodes all prompts with the text encoder as it is; from now on these are used."""
        self.text_encoder.eval()
        found = self.kept.read() if self.kept else None
        if found is not None:
            self.embeddings = found.to(self.ids.device)
            return
        with torch.no_grad():
            rows = [encode_text(self.text_encoder, row[None], self.clip_skip) for row in self.ids]
        self.embeddings = torch.cat(rows)
        if self.kept:
            self.kept.write(self.embeddings)

    def encode(self, prompts: Tensor, rows: Tensor) -> Tensor:
        """Embeddings (n, t, d) of a batch (`samples.Batch`); each prompt is encoded once."""
        if self.embeddings is not None:
            return self.embeddings[prompts[rows]]
        return encode_text(self.text_encoder, self.ids[prompts], self.clip_skip)[rows]


@dataclass
class Learner:
    """The models of a run and how they compute. `autocast_dtype` None: as the weights are."""

    unet: UNet2DConditionModel
    prompts: PromptEncoder
    alphas: Tensor  # (1000,), on the device
    prediction: str
    min_snr_gamma: float | None
    device: torch.device
    autocast_dtype: torch.dtype | None
    teacher: Teacher | None = None

    def freeze_prompts(self) -> None:
        """Encodes all prompts once: from now on the text encoder learns no more."""
        # Adapters are in fp32; beside weights in 16 bits they compute under autocast alone.
        exact = self.prompts.text_encoder.dtype == torch.float32
        with nullcontext() if exact else self.autocast():
            self.prompts.freeze()

    @contextmanager
    def eval_mode(self, *, reencode_prompts: bool = False) -> Iterator[None]:
        """Without dropout; `reencode_prompts` runs the text encoder even where it is frozen.

        A compiled UNet rests: it would be compiled anew for each shape, for minutes.
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
        """The precision's context."""
        if self.autocast_dtype is None:
            yield
            return
        attention = attention_in_fp32() if self.device.type == "cpu" else nullcontext()
        # Its cache would keep a copy of every weight through the forward pass, for no second use.
        cast = torch.autocast(self.device.type, self.autocast_dtype, cache_enabled=False)
        with cast, attention:
            yield


def unwrap_compiled(unet: Any) -> Any:
    """A UNet, without what `torch.compile` puts around it: the same weights."""
    return getattr(unet, "_orig_mod", unet)


def compute_losses(learner: Learner, batch: Batch) -> Tensor:
    """Losses (n,) fp32 of a micro-batch, each with the weight of its noise level."""
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
    """Adds a micro-batch's gradients; returns (photographs' loss, class images' loss), (2,) fp32.

    The result stays on the device: reading it would wait for the device.
    """
    losses = compute_losses(learner, batch) * batch.weights
    scaler.scale(losses.sum()).backward()
    return losses_by_kind(losses, batch)


def losses_by_kind(losses: Tensor, batch: Batch) -> Tensor:
    """(photographs' loss, class images' loss), (2,) without gradient, of losses (n,)."""
    photos = len(losses) - batch.prior_count
    return torch.stack([losses[:photos].sum(), losses[photos:].sum()]).detach()


# `forward_backward` of a run, in the way that fits its device.
ForwardBackward = Callable[[Batch], Tensor]


def accumulate_gradients(
    backward: ForwardBackward, batches: Iterable[Batch], device: torch.device
) -> Tensor:
    """The gradients and the losses (2,) of all micro-batches of a step."""
    total = torch.zeros(2, device=device)
    for batch in batches:
        total += backward(batch)
    return total


BUCKET_SIZE = 8 << 20  # values in one message between processes: 32 MB of fp32


def average_gradients(gradients: list[Tensor], accelerator: Accelerator) -> None:
    """Puts the mean over processes in place of each gradient, many in one message."""
    for bucket in buckets(gradients, BUCKET_SIZE):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        mean = accelerator.reduce(flat, "mean")
        parts = mean.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def buckets(tensors: list[Tensor], size: int) -> Iterator[list[Tensor]]:
    """The tensors in order, in lists of up to `size` values or of one larger tensor."""
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
    clip_norm: float | None,
    accelerator: Accelerator,
    zero_in_place: bool = False,
) -> None:
    """Averages the gradients over processes, clips their global norm, steps, and clears them.

    With `zero_in_place` they become zero in place, for what was recorded with these tensors.
    """
    if accelerator.num_processes > 1:
        average_gradients([p.grad for p in parameters if p.grad is not None], accelerator)
    if clip_norm is not None:
        scaler.unscale_(optimizer)
        clip_grad_norm_(parameters, clip_norm)
    scaler.step(optimizer)
    scaler.update()
    if zero_in_place:  # at once, which not all optimizers do
        torch._foreach_zero_([p.grad for p in parameters if p.grad is not None])
    else:
        optimizer.zero_grad()
