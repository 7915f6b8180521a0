"""Batches, losses and samples for training UNet and ControlNet on cached latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor

from ..trainers.objective import add_noise, alphas_cumprod, min_snr_weights, sample_losses
from ..trainers.rng import derive_seed
from ..trainers.sampler import ControlNet, calculate_sigmas, decode, prepare_noise, sample
from .pretrain_data import Pool, choose, token_ids
from .pretrain_hints import hints
from .pretrain_loop import Losses

DROPPED = 0.1  # share of captions left empty, for classifier-free guidance (arXiv:2207.12598)
GAMMA = 5.0  # of the min-SNR weights (arXiv:2303.09556)
FACE = 5.0  # weight of faces relative to their surroundings

# Prompts of the sheets: the study's six, then other words of the vocabulary.
_FINE = "standing, 4K, raw, hrd, hd, high quality, realism, sharp focus"
PROMPTS = (
    "a photo of a man sks in sunglasses",
    "a photo of a man sks with girlfriend",
    "a photo of a man sks with umbrella",
    f"close up portrait of sks man face, in the kitchen, {_FINE}",
    f"portrait of sks man face, in the forest, {_FINE}",
    f"portrait of sks man face, on the street, lights, midnight, NY, {_FINE}",
    "a photo of man, random head angle, slight smile",
    "portrait of a woman with red curly hair in a green shirt, on the beach, laughing",
    "full body photo of a man, doing yoga, tree pose, in the office",
    "close up photo of a woman with glasses, plain background, surprised",
    "half body photo of a woman with a hat, in the kitchen, waving",
    "",
)
SEED, STEPS, GUIDANCE = 7, 20, 5.0


class Batches:
    """Samples batches of latents and token ids, determined by the batch's number.

    The `lanes` batches of a step have `batch` images in total, all of one size so that they take
    the same time.
    """

    def __init__(self, pools: Sequence[Pool], batch: int, purpose: str, lanes: int = 1) -> None:
        self._pools, self._batch = pools, max(1, batch // lanes)
        self._purpose, self._lanes = purpose, lanes
        device = pools[0]["latents"].device
        self._empty = torch.from_numpy(token_ids([""])[0]).to(device)

    def draw(self, number: int) -> tuple[Tensor, Tensor, Tensor, Pool]:
        """Latents (n, 4, h, w) fp32, ids (n, 77), the sampled rows, and their pool."""
        step = np.random.default_rng(derive_seed(0, f"{self._purpose} size", number // self._lanes))
        rng = np.random.default_rng(derive_seed(0, self._purpose, number))
        pool, device = choose(self._pools, step), self._empty.device
        rows = torch.from_numpy(rng.integers(len(pool), size=self._batch)).to(device)
        said = torch.from_numpy(rng.integers(pool["ids"].shape[1], size=self._batch)).to(device)
        dropped = torch.from_numpy(rng.random(self._batch) < DROPPED).to(device)
        ids = torch.where(dropped[:, None], self._empty, pool["ids"][rows, said]).long()
        return pool["latents"][rows].float(), ids, rows, pool


@torch.no_grad()
def initialise(unet: Any) -> None:
    """Initialises blocks as the identity and the output as zero (arXiv:2105.05233)."""
    ends = [m.conv2 for m in unet.modules() if isinstance(m, ResnetBlock2D)]
    ends += [m.proj_out for m in unet.modules() if isinstance(m, Transformer2DModel)]
    for end in (*ends, unet.conv_out):
        for parameter in end.parameters():
            parameter.zero_()


def losses(
    unet: Any, states: Tensor, latents: Tensor, generator: torch.Generator, alphas: Tensor,
    control: ControlNet | None = None, noisy: bool = False, where: Tensor | None = None,
) -> Losses:  # fmt: skip
    """The weighted and the unweighted error of the predicted noise.

    Timesteps are uniform, or with `noisy` the maximum of two uniform ones. `states` (n, 77, d) are
    the text encoder's, `alphas` (1000,) the noise schedule's, on the latents' device; `where`
    (n, 1, h, w) weights positions.
    """
    device = latents.device
    noise = torch.randn(latents.shape, generator=generator, device=device)
    timesteps = torch.randint(0, 1000, (len(latents),), generator=generator, device=device)
    if noisy:
        others = torch.randint(0, 1000, timesteps.shape, generator=generator, device=device)
        timesteps = torch.maximum(timesteps, others)
    x = add_noise(latents, noise, timesteps, alphas)
    down, middle = control(x, timesteps, states) if control is not None else (None, None)
    predicted = unet(
        x, timesteps, states, down_block_additional_residuals=down,
        mid_block_additional_residual=middle, return_dict=False,
    )[0]  # fmt: skip
    plain = sample_losses(predicted, noise).detach().mean()
    root = 1 if where is None else where.sqrt()
    errors = sample_losses(root * predicted.float(), root * noise)  # (n,)
    weights = min_snr_weights(timesteps, alphas, GAMMA, "epsilon")
    return {"loss": (weights * errors).mean(), "noise": plain}


def face_weights(joints: Tensor, height: int, width: int) -> Tensor:
    """Weights of positions (n, 1, height, width) with mean 1 per image, higher at faces.

    Faces are few pixels of most images, but most of what distinguishes people. A face is a disc
    whose radius is the distance of nose and neck. `joints` (n, 18, 3) are x and y from 0 to 1, and
    1 if visible.
    """
    joints, aspect = joints.float(), width / height
    nose, neck = joints[:, 0], joints[:, 1]
    away = torch.where(neck[:, 2:] > 0, neck[:, :2] - nose[:, :2], 1 - nose[:, :2])
    away[:, 0] *= aspect * (neck[:, 2] > 0)  # assumes a neck below the image straight below
    radius = away.norm(dim=1).clamp(min=1e-3)[:, None, None]  # in heights, as below
    x = (torch.arange(width, device=joints.device) + 0.5) / width
    y = (torch.arange(height, device=joints.device) + 0.5) / height
    across = (x[None, None, :] - nose[:, 0, None, None]) * aspect
    down = y[None, :, None] - nose[:, 1, None, None] + 0.25 * radius
    inside = ((1.15 - torch.hypot(across, down) / radius) / 0.3).clamp(0, 1)
    weights = 1 + (FACE - 1) * inside * (nose[:, 2, None, None] > 0)
    return (weights / weights.mean((1, 2), keepdim=True))[:, None]


def schedule(device: torch.device) -> Tensor:
    """SD 1.x's cumulative alphas on a device, (1000,)."""
    return alphas_cumprod().to(device)


def random_hints(joints: Tensor, width: int, height: int, generator: torch.Generator) -> Tensor:
    """Skeletons from 0 to 1 for joints (n, 18, 3), with a random radius of 1 to 3 pixels at 128."""
    scale = torch.rand(len(joints), generator=generator, device=joints.device)
    return hints(joints, width, height, (1 + 2 * scale) * height / 128)


def draw(
    unet: Any, text_encoder: Any, vae: Any, prompts: Sequence[str],
    control: ControlNet | None = None, width: int = 96, height: int = 128,
) -> np.ndarray:  # fmt: skip
    """An image (height, width, 3) uint8 for each prompt, each from different noise."""
    ids = torch.from_numpy(token_ids([*prompts, ""])).long().to(unet.device)
    states = text_encoder(ids).last_hidden_state
    noise = prepare_noise([SEED + k for k in range(len(prompts))], height, width)
    latents = sample(
        unet, states[:-1], states[-1:], noise, sigmas=calculate_sigmas(STEPS), guidance=GUIDANCE,
        control=control,
    )  # fmt: skip
    return decode(vae, latents)
