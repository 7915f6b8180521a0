"""The objective of diffusion training: pure functions on tensors.

Shapes: n samples of latents (n, 4, h, w) as the UNet sees them; timesteps (n,) int64 in 0..999.
"""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import Tensor

TIMESTEPS = 1000
BETAS = (0.00085, 0.012)  # at the first and last timestep: SD 1.x's, arXiv:2112.10752


def alphas_cumprod() -> Tensor:
    """SD 1.x's cumulative product of alphas, (1000,) fp32: scaled-linear BETAS."""
    scheduler = DDPMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=BETAS[0],
        beta_end=BETAS[1],
        beta_schedule="scaled_linear",
    )
    return scheduler.alphas_cumprod


def _rates(alphas: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    return alpha.sqrt(), (1 - alpha).sqrt()


def add_noise(latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor) -> Tensor:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) noise (Ho et al. 2020, eq. 4)."""
    signal, sigma = _rates(alphas, timesteps)
    return signal * latents + sigma * noise


def prediction_target(
    latents: Tensor, noise: Tensor, timesteps: Tensor, alphas: Tensor, prediction: str
) -> Tensor:
    """What the UNet should predict: the noise, or v = sqrt(a) noise - sqrt(1 - a) x_0.

    v: Salimans and Ho 2022, appendix D. `prediction` is "epsilon" or "v_prediction".
    """
    if prediction == "epsilon":
        return noise
    signal, sigma = _rates(alphas, timesteps)
    return signal * noise - sigma * latents


def min_snr_weights(
    timesteps: Tensor, alphas: Tensor, gamma: float | None, prediction: str
) -> Tensor:
    """Weights (n,) of the samples' losses: Hang et al. 2023 (arXiv:2303.09556), section 3.4.

    min(snr, gamma) / snr for epsilon, / (snr + 1) for v; ones if `gamma` is None.
    """
    if gamma is None:
        return torch.ones(timesteps.shape, device=alphas.device)
    alpha = alphas[timesteps]
    snr = alpha / (1 - alpha)
    return snr.clamp(max=gamma) / (snr if prediction == "epsilon" else snr + 1)


def offset_noise(noise: Tensor, shift: Tensor, strength: float) -> Tensor:
    """Noise whose mean varies by channel: noise + strength * shift, shift (…, 4, 1, 1) normal.

    Guttenberg 2023, "Diffusion with offset noise"; 0.05 to 0.1 is usual.
    """
    return noise + strength * shift


def sample_losses(predicted: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each sample, (n,) fp32.

    With a `mask` (n, 1, h, w) of weights, the weighted mean, so that a small subject counts as
    much as a large one.
    """
    errors = (predicted.float() - target.float()).pow(2)
    if mask is None:
        return errors.mean(dim=(1, 2, 3))
    return (errors * mask).sum(dim=(1, 2, 3)) / (errors.shape[1] * mask.sum(dim=(1, 2, 3)))
