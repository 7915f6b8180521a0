"""Samples of an optimizer step: a pure function of the recipe, the step and the slot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from . import rng
from .latents import Latents, StoredLatents
from .objective import offset_noise
from .recipe import Recipe

_PHOTO_ORDER, _CLASS_ORDER = "photo order", "class order"  # purposes of random numbers


@dataclass(frozen=True)
class DatasetItem:
    """Views of one image: plain, and mirrored if the recipe flips; none for an unused class image.

    `masks` are each view's loss weights (h, w), empty without masks; `prompts` are indices into
    `Dataset.prompts`: several if its tags have several orders, of which a sample has one.
    """

    views: tuple[Latents | StoredLatents, ...]
    prompts: tuple[int, ...]
    masks: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What is encoded once: photographs, class images, held-out photographs, prompts.

    `empty` is the index of the empty prompt if the recipe drops captions.
    """

    photos: tuple[DatasetItem, ...]
    classes: tuple[DatasetItem, ...]
    held_out: tuple[DatasetItem, ...]
    prompts: tuple[str, ...]
    empty: int | None = None


@dataclass(frozen=True)
class Sample:
    """One image at one noise level. `weight` is its share of the step's loss."""

    latents: Tensor  # (4, h, w)
    noise: Tensor  # (4, h, w)
    timestep: int
    prompt: int
    weight: float
    prior: bool
    mask: Tensor | None = None  # (h, w): loss weights


@dataclass(frozen=True)
class Batch:
    """n samples of one shape on the device; the last `prior_count` are for prior preservation."""

    latents: Tensor  # (n, 4, h, w)
    noise: Tensor  # (n, 4, h, w)
    timesteps: Tensor  # (n,) int64
    prompts: Tensor  # (d,) int64: the distinct prompts
    rows: Tensor  # (n,) int64: index of each sample's prompt in `prompts`
    weights: Tensor  # (n,): each sample's share of the step's loss
    mask: Tensor | None  # (n, 1, h, w): loss weights; None: all equal
    prior_count: int

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensor fields, in order; one fewer without a mask."""
        fields = (self.latents, self.noise, self.timesteps, self.prompts, self.rows, self.weights)
        return fields if self.mask is None else (*fields, self.mask)

    @classmethod
    def of(cls, tensors: tuple[Tensor, ...], prior_count: int) -> Batch:
        """Rebuilds a batch from its `tensors()`."""
        latents, noise, timesteps, prompts, rows, weights, *mask = tensors
        return cls(
            latents,
            noise,
            timesteps,
            prompts,
            rows,
            weights,
            mask[0] if mask else None,
            prior_count,
        )


def step_samples(
    recipe: Recipe, dataset: Dataset, step: int, rank: int = 0, world_size: int = 1
) -> list[list[Sample]]:
    """Samples of optimizer step `step` (from 0) for one process, in micro-batches.

    A micro-batch has up to `schedule.batch_size` photographs and as many class images, all of one
    shape. The photographs' weights sum to 1, the class images' to the prior's weight.
    """
    local_batch_size = recipe.schedule.batch_size * recipe.schedule.gradient_accumulation_steps
    slots = range(rank, local_batch_size * world_size, world_size)
    batches: list[list[Sample]] = []
    for start in range(0, local_batch_size, recipe.schedule.batch_size):
        chunk = slots[start : start + recipe.schedule.batch_size]
        batch = [
            _sample(recipe, dataset, step, slot, local_batch_size, world_size, False)
            for slot in chunk
        ]
        if dataset.classes:
            batch += [
                _sample(recipe, dataset, step, slot, local_batch_size, world_size, True)
                for slot in chunk
            ]
        batches += _group_by_shape(batch)
    return batches


def used_class_images(recipe: Recipe, count: int, world_size: int = 1) -> list[int]:
    """Numbers, ascending, of the class images out of `count` that a run of `world_size` processes
    uses: all, unless it has fewer samples.
    """
    slots = (
        recipe.schedule.steps
        * recipe.schedule.batch_size
        * recipe.schedule.gradient_accumulation_steps
        * world_size
    )
    used = (
        rng.shuffled_index(slot, count, recipe.seed, _CLASS_ORDER)
        for slot in range(min(slots, count))
    )
    return sorted(used)


def validation_samples(recipe: Recipe, dataset: Dataset, levels: int = 5) -> Iterator[Sample]:
    """Every held-out photograph at `levels` timesteps, evenly spread over the trained range; the
    same at every call.
    """
    least, most = recipe.objective.timestep_min, recipe.objective.timestep_max
    for index, item in enumerate(dataset.held_out):
        for level in range(levels):
            view = item.views[0].read()
            shape = tuple(view.mean.shape)
            noise = rng.randn(shape, recipe.seed, "validation noise", index, level)
            timestep = least + (2 * level + 1) * (most - least) // (2 * levels)
            mask = item.masks[0] if item.masks else None
            yield Sample(view.mean, noise, timestep, item.prompts[0], 1.0, False, mask)


def _sample(
    recipe: Recipe,
    dataset: Dataset,
    step: int,
    slot: int,
    local_batch_size: int,
    world_size: int,
    prior: bool,
) -> Sample:
    seed, kind = recipe.seed, "class" if prior else "photo"
    items = dataset.classes if prior else dataset.photos
    order = _CLASS_ORDER if prior else _PHOTO_ORDER
    item = items[
        rng.shuffled_index(step * local_batch_size * world_size + slot, len(items), seed, order)
    ]
    flip = rng.randint(len(item.views), seed, f"{kind} flip", step, slot)
    view = item.views[flip].read()
    shape = tuple(view.mean.shape)  # (4, h, w)
    posterior = rng.randn(shape, seed, f"{kind} posterior", step, slot)
    noise = rng.randn(shape, seed, f"{kind} noise", step, slot)
    if recipe.objective.noise_offset:
        shift = rng.randn((shape[0], 1, 1), seed, f"{kind} offset", step, slot)
        noise = offset_noise(noise, shift, recipe.objective.noise_offset)
    least, most = recipe.objective.timestep_min, recipe.objective.timestep_max
    prompt, rate = item.prompts[0], recipe.objective.caption_dropout
    if len(item.prompts) > 1:
        prompt = item.prompts[rng.randint(len(item.prompts), seed, f"{kind} tags", step, slot)]
    if dataset.empty is not None and rng.uniform(seed, f"{kind} caption", step, slot) < rate:
        prompt = dataset.empty
    return Sample(
        latents=view.mean + view.std * posterior,
        noise=noise,
        timestep=least + rng.randint(most - least, seed, f"{kind} timestep", step, slot),
        prompt=prompt,
        weight=(recipe.prior.loss_weight if prior and recipe.prior else 1.0) / local_batch_size,
        prior=prior,
        mask=item.masks[flip] if item.masks else None,
    )


def _group_by_shape(batch: list[Sample]) -> list[list[Sample]]:
    def shape(sample: Sample) -> tuple[int, ...]:
        return tuple(sample.latents.shape)

    return [list(group) for _, group in groupby(sorted(batch, key=shape), key=shape)]


def collate(samples: Sequence[Sample], device: torch.device) -> Batch:
    """Collates samples of one shape into a micro-batch on the device."""
    samples = sorted(samples, key=lambda sample: sample.prior)
    prompts = sorted({sample.prompt for sample in samples})
    batch = Batch(
        latents=torch.stack([sample.latents for sample in samples]),
        noise=torch.stack([sample.noise for sample in samples]),
        timesteps=torch.tensor([sample.timestep for sample in samples]),
        prompts=torch.tensor(prompts),
        rows=torch.tensor([prompts.index(sample.prompt) for sample in samples]),
        weights=torch.tensor([sample.weight for sample in samples]),
        mask=_masks(samples),
        prior_count=sum(sample.prior for sample in samples),
    )
    return Batch.of(
        tuple(_to_device(tensor, device) for tensor in batch.tensors()), batch.prior_count
    )


def _masks(samples: Sequence[Sample]) -> Tensor | None:
    """(n, 1, h, w), ones for samples without a mask; None if no sample has one."""
    if all(sample.mask is None for sample in samples):
        return None
    shape = samples[0].latents.shape[1:]
    masks = [torch.ones(shape) if sample.mask is None else sample.mask for sample in samples]
    return torch.stack(masks).unsqueeze(1)


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copies a tensor to the device, to a GPU asynchronously."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
