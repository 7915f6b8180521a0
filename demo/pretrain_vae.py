"""Trains the miniature's VAE on crops, with plain, edge and coarse errors and noisy latents.

Combines absolute and squared errors: absolute errors alone wash out eyes and mouths, which are few
pixels, and squared errors alone leave every line soft.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn

from .pretrain_loop import Losses

NOISE = 0.05  # added to latents, so that the decoder tolerates a UNet's residual noise
EDGES, SQUARES, SPREAD = 0.5, 4.0, 0.05  # weights relative to the plain error
HALVED = 8  # every 8th step uses latents at half resolution
GUIDED = 2000  # steps in which three latent channels are guided towards a thumbnail
FACES = 2 / 3  # share of crops at a face

# A thumbnail of about unit variance: lightness, warm against cold, green against magenta.
_COLOURS = ((0.83, 0.83, 0.83), (2.3, 0.0, -2.3), (-3.2, 6.4, -3.2))
_MEANS = (0.59, 0.27, 0.14)


def initialise(vae: AutoencoderTiny) -> None:
    """Kaiming initialisation (arXiv:1502.01852), with blocks as the identity."""
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, AutoencoderTinyBlock):
            nn.init.zeros_(module.conv[-1].weight)


def losses(vae: AutoencoderTiny, images: Tensor, generator: torch.Generator, step: int) -> Losses:
    """The losses of the VAE on images (n, 3, h, w) from -1 to 1.

    In every eighth step, latents and images are downscaled by two after encoding. This makes
    decoding commute with scaling, and the latents easier for a diffusion model (arXiv:2502.09509).
    At first, three latent channels are guided towards a thumbnail: without it, colours take ten
    times as long to learn.
    """
    latents = vae.encode(images).latents.float()
    guide = (latents[:, :3] - _thumbnail(images)).square().mean()
    spread = _spread(latents)
    if step % HALVED == HALVED - 1:
        latents, images = F.avg_pool2d(latents, 2), F.avg_pool2d(images, 2)
    noise = torch.randn(latents.shape, generator=generator, device=latents.device)
    decoded = vae.decode(latents + NOISE * noise).sample.float()
    error = decoded - images
    plain, edges, coarse = _size(error), _edges(error), _size(F.avg_pool2d(error, 4))
    total = plain + EDGES * edges + coarse + SPREAD * spread
    total = total + max(0.0, 1 - step / GUIDED) * guide
    return {"loss": total, "plain": plain, "edges": edges, "coarse": coarse, "spread": spread}


def _thumbnail(images: Tensor) -> Tensor:
    """Images at 1/8 of the size in three decorrelated colour channels, (n, 3, h / 8, w / 8)."""
    small = F.avg_pool2d(images, 8)
    turned = torch.einsum("kc,nchw->nkhw", small.new_tensor(_COLOURS), small)
    return turned - small.new_tensor(_MEANS).view(3, 1, 1)


def _size(error: Tensor) -> Tensor:
    """Mean absolute error plus weighted mean squared error."""
    return error.abs().mean() + SQUARES * error.square().mean()


def _edges(error: Tensor) -> Tensor:
    """`_size` of the differences between neighbouring pixels: lines count more than areas."""
    return _size(error.diff(dim=3)) + _size(error.diff(dim=2))


def _spread(latents: Tensor) -> Tensor:
    """Deviation of the channels from mean 0, variance 1 and zero correlation: mean squares of
    means, log variances and correlations."""
    channels = latents.transpose(0, 1).flatten(1)  # (4, n)
    covariance = torch.cov(channels)  # (4, 4)
    variance = covariance.diagonal().clamp(min=1e-6)
    correlation = covariance / (variance[:, None] * variance).sqrt()
    apart = (correlation - torch.eye(4, device=latents.device)).square().mean()
    return (channels.mean(1).square() + variance.log().square()).mean() + apart


def crops(
    pixels: Tensor, joints: Tensor, index: Tensor, rng: np.random.Generator, size: int
) -> Tensor:
    """Crops (n, 3, size, size) from -1 to 1 of uint8 images (N, h, w, 3), 2/3 of them at a face.

    Faces are few pixels of most images, but most of what distinguishes people. `joints`
    (N, 18, 3) are the images' keypoints.
    """
    height, width = pixels.shape[1:3]
    noses = joints[index, 0].cpu().numpy()  # (n, 3)
    free = rng.random((len(noses), 2))
    near = noses[:, :2] * (width, height) + (free - 0.5) * size
    spare = np.array([width - size, height - size])
    at_face = (noses[:, 2:] > 0) & (rng.random((len(noses), 1)) < FACES)
    corners = np.where(at_face, near - size / 2, free * (spare + 1)).clip(0, spare).astype(int)
    cut = [
        pixels[row, y : y + size, x : x + size]
        for row, (x, y) in zip(index.tolist(), corners, strict=True)
    ]
    return to_unit(torch.stack(cut))


def to_unit(pixels: Tensor) -> Tensor:
    """uint8 (n, h, w, 3) to float (n, 3, h, w) from -1 to 1."""
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pixels(images: Tensor) -> np.ndarray:
    """Float (n, 3, h, w) from -1 to 1 to uint8 (n, h, w, 3)."""
    scaled = (images.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def tiled(images: np.ndarray, columns: int) -> np.ndarray:
    """Images (n, h, w, 3) tiled in rows of `columns`; an incomplete last row is dropped."""
    n, h, w, c = images.shape
    rows = n // columns
    grid = images[: rows * columns].reshape(rows, columns, h, w, c)
    return grid.transpose(0, 2, 1, 3, 4).reshape(rows * h, columns * w, c)


@torch.no_grad()
def sheet(vae: AutoencoderTiny, pixels: Tensor, count: int = 16) -> np.ndarray:
    """Drawings with their VAE reconstructions below them, in rows of 8."""
    chosen = pixels[:: max(1, len(pixels) // count)][:count]
    made = vae.decode(vae.encode(to_unit(chosen)).latents).sample
    pairs = np.stack([chosen.cpu().numpy().reshape(-1, 8, *chosen.shape[1:]),
                      to_pixels(made).reshape(-1, 8, *chosen.shape[1:])], axis=1)  # fmt: skip
    return tiled(pairs.reshape(-1, *chosen.shape[1:]), 8)
