"""Trains the miniature's VAE on crops: plain, edge and coarse errors, and latents fit for noise."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Tensor

from .pretrain_loop import Losses

CROP = 64
NOISE = 0.05  # added to the latents, so that the decoder bears what a UNet leaves
SPREAD = 0.05  # weight of the latents' distance from mean 0 and variance 1


def losses(
    vae: AutoencoderTiny, pictures: Tensor, generator: torch.Generator, half: bool
) -> Losses:
    """The errors of the VAE on pictures (n, 3, h, w) of -1 to 1.

    With `half`, latents and pictures are halved after encoding: decoding commutes with scaling
    then, which makes latents that a diffusion model learns easily (arXiv:2502.09509).
    """
    latents = vae.encode(pictures).latents.float()
    spread = _spread(latents)
    if half:
        latents, pictures = F.avg_pool2d(latents, 2), F.avg_pool2d(pictures, 2)
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    decoded = vae.decode(latents + NOISE * noise).sample.float()
    plain = (decoded - pictures).abs().mean()
    edges = _edges(decoded - pictures)
    coarse = F.avg_pool2d(decoded - pictures, 4).abs().mean()
    total = plain + edges + coarse + SPREAD * spread
    return {"loss": total, "plain": plain, "edges": edges, "coarse": coarse, "spread": spread}


def _edges(error: Tensor) -> Tensor:
    """Mean absolute difference of neighbours: lines count more than areas."""
    across, down = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    return across + down


def _spread(latents: Tensor) -> Tensor:
    """How far each channel is from mean 0 and variance 1: squared mean and squared log variance."""
    variance, mean = torch.var_mean(latents, dim=(0, 2, 3))  # (4,)
    return (mean.square() + variance.clamp(min=1e-6).log().square()).mean()


def crops(pixels: Tensor, index: Tensor, rng: np.random.Generator, size: int = CROP) -> Tensor:
    """Crops (n, 3, size, size) of -1 to 1 from uint8 pictures (N, h, w, 3), one place for all."""
    height, width = pixels.shape[1:3]
    y, x = (int(rng.integers(0, side - size + 1)) for side in (height, width))
    return to_unit(pixels[:, y : y + size, x : x + size][index])


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) to float (n, 3, h, w) of -1 to 1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(pictures: Tensor) -> np.ndarray:
    """Float (n, 3, h, w) of -1 to 1 to uint8 (n, h, w, 3)."""
    scaled = (pictures.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def tiled(pictures: np.ndarray, columns: int) -> np.ndarray:
    """Pictures (n, h, w, 3) side by side in rows of `columns`; a last, shorter row is dropped."""
    n, h, w, c = pictures.shape
    rows = n // columns
    grid = pictures[: rows * columns].reshape(rows, columns, h, w, c)
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)


@torch.no_grad()
def sheet(vae: AutoencoderTiny, pixels: Tensor, count: int = 16) -> np.ndarray:
    """Drawings and, below them, what the VAE makes of them, in rows of 8."""
    chosen = pixels[:: max(1, len(pixels) // count)][:count]
    made = vae.decode(vae.encode(to_unit(chosen)).latents).sample
    pairs = np.stack([chosen.cpu().numpy().reshape(-1, 8, *chosen.shape[1:]),
                      to_pixels(made).reshape(-1, 8, *chosen.shape[1:])], axis=1)  # fmt: skip
    return tiled(pairs.reshape(-1, *chosen.shape[1:]), 8)
