"""Trains a judge on drawings, on drawings decoded by the VAE, and on images to reject."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..trainers.rng import derive_seed
from .facts import QUESTIONS, TRAITS, UNKNOWN, rejected
from .judge_networks import JudgeOutput
from .pretrain_data import Pool, choose
from .pretrain_loop import Losses
from .pretrain_shards import GROUP, HELD_OUT, SIZES, images_of
from .pretrain_vae import tiled, to_pixels, to_unit

REJECTED = 0.06  # share of corrupted images
DECODED = 0.2  # share that is decoded by the VAE from noisy latents, to look like generated ones
LATENT_NOISE = 0.4  # highest standard deviation of that noise
TEMPERATURE = 0.1
_KIND = list(QUESTIONS).index("kind")
_WEIGHTS = {"answers": 1.0, "traits": 2.0, "joints": 10.0, "visible": 1.0, "identity": 0.5}

Batch = dict[str, Tensor]


class Batches:
    """Samples batches of whole groups (see `pretrain_shards`), determined by the step."""

    def __init__(self, pools: Sequence[Pool], batch: int, purpose: str, vae: Any = None) -> None:
        self._pools, self._groups, self._purpose, self._vae = pools, batch // GROUP, purpose, vae

    def draw(self, step: int, generator: torch.Generator) -> Batch:
        """Images (n, 3, h, w) from -1 to 1 with their facts, traits and joints."""
        rng = np.random.default_rng(derive_seed(0, self._purpose, step))
        pool = choose(self._pools, rng)
        first = rng.integers(len(pool) // GROUP, size=self._groups) * GROUP
        rows = torch.from_numpy((first[:, None] + np.arange(GROUP)).reshape(-1))
        rows = rows.to(pool["pixels"].device)
        keys = [key for key in ("traits", "joints", "latents") if key in pool.tensors]
        batch: Batch = {key: pool[key][rows].float() for key in keys}
        batch["facts"] = pool["facts"][rows].long()
        batch["images"] = to_unit(pool["pixels"][rows])
        if self._vae is not None:  # then the pools have latents
            _decode_some(batch, self._vae, rng, generator)
        _vary(batch, rng, generator)
        spoil_some(batch, rng, generator, REJECTED)
        return batch


def _some(batch: Batch, share: float, rng: np.random.Generator) -> Tensor:
    """Random rows of a batch, each with probability `share`."""
    chosen = np.flatnonzero(rng.random(len(batch["facts"])) < share)
    return torch.from_numpy(chosen).to(batch["facts"].device)


@torch.no_grad()
def _decode_some(
    batch: Batch, vae: Any, rng: np.random.Generator, generator: torch.Generator
) -> None:
    rows = _some(batch, DECODED, rng)
    if len(rows):
        latents = batch["latents"][rows]
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        size = torch.rand(len(rows), 1, 1, 1, generator=generator, device=latents.device)
        decoded = vae.decode(latents + LATENT_NOISE * size.square() * noise).sample
        batch["images"][rows] = decoded.float().clamp(-1, 1)


def _vary(batch: Batch, rng: np.random.Generator, generator: torch.Generator) -> None:
    """Augments brightness, contrast and grain, and blurs half of the batches slightly."""
    x = batch["images"]
    factors = torch.rand(len(x), 3, 1, 1, generator=generator, device=x.device)
    grain = torch.randn(x.shape, generator=generator, device=x.device)
    x = x * (0.9 + 0.2 * factors[:, :1]) + 0.16 * (factors[:, 1:2] - 0.5)
    if rng.random() < 0.5:
        soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        x = torch.lerp(x, soft, factors[:, 2:])
    batch["images"] = x + 0.05 * factors[:, 2:] * grain


SPOILED = ("two at once", "patches in disorder", "coloured clouds")


def spoil_some(
    batch: Batch, rng: np.random.Generator, generator: torch.Generator, share: float
) -> None:
    """Corrupts a share of the images, row n in the way n % 3 of SPOILED."""
    x, rows = batch["images"], _some(batch, share, rng)
    if not len(rows):
        return
    n, _, h, w = x.shape
    kinds = rows.cpu().numpy() % 3
    for kind, row in zip(kinds, rows.tolist(), strict=True):
        if kind == 0:
            x[row] = 0.5 * (x[row] + x[(row + n // 2) % n])
        elif kind == 1:
            x[row] = _shuffled(x[row], 16, rng)
        else:
            small = torch.randn(1, 3, h // 16, w // 16, generator=generator, device=x.device)
            x[row] = F.interpolate(small, (h, w), mode="bicubic")[0].clamp(-1, 1)
    batch["facts"][rows] = torch.from_numpy(rejected()).long().to(rows.device)


def _shuffled(image: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """The image (3, h, w) with its patches of `side` pixels shuffled."""
    c, h, w = image.shape
    patches = image.reshape(c, h // side, side, w // side, side).permute(1, 3, 0, 2, 4)
    order = torch.from_numpy(rng.permutation((h // side) * (w // side))).to(image.device)
    mixed = patches.reshape(-1, c, side, side)[order].reshape(h // side, w // side, c, side, side)
    return mixed.permute(2, 0, 3, 1, 4).reshape(c, h, w)


def losses(network: Any, batch: Batch) -> Losses:
    """The losses of a judge's answers, traits, joints and identities, and their weighted sum."""
    opinion: JudgeOutput = network(batch["images"])
    fit = (batch["facts"][:, _KIND] == 0).float()  # (n,): not rejected
    shown = batch["joints"][..., 2] * fit[:, None]  # (n, 18)
    away = (opinion.joints - batch["joints"][..., :2]).abs().sum(-1)
    seen = F.binary_cross_entropy_with_logits(opinion.visible, shown, reduction="none").mean(1)
    parts = {
        "answers": answer_loss(opinion.answers, batch["facts"]),
        "traits": weighted_mean((opinion.traits - batch["traits"]).square().mean(1), fit),
        "joints": weighted_mean(away, shown),
        "visible": weighted_mean(seen, fit),
        "identity": _identity_loss(opinion.identity, fit),
    }
    total = torch.stack([_WEIGHTS[name] * part for name, part in parts.items()]).sum()
    return {"loss": total, **parts}


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean, or 0 if all weights are 0."""
    return (values * weights).sum() / weights.sum().clamp(min=1)


def answer_loss(answers: Mapping[str, Tensor], facts: Tensor) -> Tensor:
    """Mean cross entropy over the questions, ignoring UNKNOWN answers."""
    each = []
    for column, question in enumerate(QUESTIONS):
        known = (facts[:, column] != UNKNOWN).sum().clamp(min=1)
        error = F.cross_entropy(
            answers[question], facts[:, column], ignore_index=UNKNOWN, reduction="sum"
        )
        each.append(error / known)
    return torch.stack(each).mean()


def _identity_loss(identity: Tensor, fit: Tensor) -> Tensor:
    """Contrastive loss: each image must find the other one of its person (arXiv:2002.05709).

    The negatives include the two images of its twin, who differs in traits only.
    """
    n = len(identity)
    likeness = identity @ identity.T / TEMPERATURE
    likeness = likeness.masked_fill(torch.eye(n, dtype=torch.bool, device=fit.device), -1e4)
    other = torch.arange(n, device=fit.device) ^ 1
    return weighted_mean(F.cross_entropy(likeness, other, reduction="none"), fit * fit[other])


# Evaluation.


def held_out(device: torch.device, count: int = 512) -> Pool:
    """Held-out drawings of one size."""
    arrays = images_of(SIZES[0], HELD_OUT, count)
    tensors = {
        key: torch.from_numpy(v).to(device) for key, v in arrays.items() if key != "captions"
    }
    return Pool(SIZES[0], tensors)


@torch.no_grad()
def evaluate(network: Any, pool: Pool) -> dict[str, Any]:
    """Scores on held-out drawings: accuracy per question, explained variance per trait, joint error
    in image heights, and how often an image finds its person's other image before the twin's
    two (chance: one in three)."""
    opinions = [network(to_unit(part)) for part in pool["pixels"].split(64)]
    facts, joints = pool["facts"].long(), pool["joints"].float()
    answers = {}
    for column, question in enumerate(QUESTIONS):
        said = torch.cat([o.answers[question] for o in opinions]).argmax(1)
        known = facts[:, column] != UNKNOWN
        right = (said == facts[:, column])[known].float()
        answers[question] = round(float(right.mean()), 4)
    fit = facts[:, _KIND] == 0
    values = pool["traits"].float()[fit]
    error = torch.cat([o.traits for o in opinions])[fit] - values
    explained = 1 - error.square().mean(0) / values.var(0, unbiased=False)
    aspect = joints.new_tensor((pool.size.width / pool.size.height, 1.0))
    away = (torch.cat([o.joints for o in opinions]) - joints[..., :2]) * aspect
    shown = joints[..., 2] * fit[:, None]
    return {
        "images": len(pool),
        "answers": answers,
        "traits": dict(zip(TRAITS, (round(v, 3) for v in explained.tolist()), strict=True)),
        "joint_error": round(float(weighted_mean(away.norm(dim=-1), shown)), 4),
        "twins_told_apart": _told_apart(torch.cat([o.identity for o in opinions]), fit),
    }


def _told_apart(identity: Tensor, fit: Tensor) -> float:
    """Share of groups of four in which the first image is most similar to the second."""
    groups = identity.reshape(-1, GROUP, identity.shape[1])
    likeness = torch.einsum("gc,gkc->gk", groups[:, 0], groups[:, 1:])
    whole = fit.reshape(-1, GROUP).all(1)
    return round(float((likeness.argmax(1) == 0)[whole].float().mean()), 4)


@torch.no_grad()
def sheet(network: Any, pixels: Tensor) -> np.ndarray:
    """Images (n, h, w, 3) in rows of 8, with detected joints as dots."""
    images = to_unit(pixels)
    opinion: JudgeOutput = network(images)
    shown = to_pixels(images)
    height, width = shown.shape[1:3]
    spots = (opinion.joints.cpu().numpy() * (width - 1, height - 1)).round().astype(int)
    for row, joint in zip(*np.nonzero(opinion.visible.cpu().numpy() > 0), strict=True):
        x, y = spots[row, joint]
        shown[row, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = (255, 0, 255)
    return tiled(shown, 8)
