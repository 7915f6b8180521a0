"""Sampling from a Stable Diffusion 1.x model, with ComfyUI's sigmas and scaling.

diffusers' schedulers are not used: `DPMSolverMultistepScheduler` takes no sigmas, and
`EulerDiscreteScheduler` scales the initial noise by sigma_max or by sqrt(1 + sigma_max^2) depending
on its timestep spacing. The two solvers here do exactly what ComfyUI's do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .errors import RunCancelled
from .objective import BETAS, TIMESTEPS

Scheduler = Literal["simple", "normal", "karras"]
Solver = Literal["euler", "dpmpp_2m"]

Denoiser = Callable[[Tensor, int], Tensor]  # (noisy latents x, step i) -> the estimate of clean x
# (scaled latents, timestep, text states) -> a ControlNet's residuals: one for each skip
# connection, and the one of the middle block
ControlNet = Callable[[Tensor, Tensor, Tensor], tuple[Sequence[Tensor], Tensor]]


def sigma_table() -> Tensor:
    """sigma = sqrt((1 - a) / a) at each of SD 1.x's 1000 timesteps, ascending, fp32.

    a is the cumulative product of 1 - beta; sqrt(beta) is linear between the roots of BETAS
    ("scaled_linear").
    """
    first, last = (beta**0.5 for beta in BETAS)
    beta = torch.linspace(first, last, TIMESTEPS, dtype=torch.float64) ** 2
    alpha = torch.cumprod(1 - beta, dim=0)
    return ((1 - alpha) / alpha).sqrt().float()


def calculate_sigmas(steps: int, scheduler: Scheduler = "simple") -> Tensor:
    """The noise levels of `steps` steps (1 to 1000), descending to 0: shape (steps + 1,).

    ``simple`` and ``normal`` are ComfyUI's schedulers of these names (integer timesteps from the
    top, and evenly spaced timesteps from 999 to 0); ``karras`` is eq. 5 of arXiv:2206.00364 with
    rho = 7. Raises ValueError for another number of steps or scheduler.
    """
    if not 1 <= steps <= 1000:
        raise ValueError(f"steps must be from 1 to 1000, not {steps}")
    table = sigma_table()
    if scheduler == "simple":
        sigmas = table[[-1 - int(i * (len(table) / steps)) for i in range(steps)]]
    elif scheduler == "normal":
        sigmas = _interpolate(table, torch.linspace(len(table) - 1, 0, steps))
    elif scheduler == "karras":
        top, bottom = float(table[-1]) ** (1 / 7), float(table[0]) ** (1 / 7)
        sigmas = (top + torch.linspace(0, 1, steps) * (bottom - top)) ** 7
    else:
        raise ValueError(f"unknown scheduler {scheduler!r}: choose simple, normal or karras")
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _interpolate(table: Tensor, timesteps: Tensor) -> Tensor:
    """Interpolates the table at fractional timesteps, linearly in log sigma."""
    low, high, weight = timesteps.floor().long(), timesteps.ceil().long(), timesteps.frac()
    return torch.lerp(table[low].log(), table[high].log(), weight).exp()


def sigmas_to_timesteps(sigmas: Tensor) -> Tensor:
    """The integer timestep nearest each sigma in log space, as ComfyUI rounds: int64, 0 to 999."""
    return (sigmas.log()[:, None] - sigma_table().log()).abs().argmin(dim=1)


def prepare_noise(seeds: Sequence[int], height: int, width: int) -> Tensor:
    """Normal noise (n, 4, height // 8, width // 8) for images of `height` x `width` pixels, fp32.

    Each image has its own CPU generator, so its noise does not depend on the rest of the batch and
    equals ComfyUI's noise for a single image with that seed.
    """
    shape = (1, 4, height // 8, width // 8)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


@torch.no_grad()
def sample(
    unet: Any,
    positive: Tensor,  # (n, t, d)
    negative: Tensor,  # (n or 1, t, d)
    noise: Tensor,  # (n, 4, h, w)
    *,
    sigmas: Tensor,  # (steps + 1,)
    guidance: float,
    solver: Solver = "euler",
    prediction: str = "epsilon",
    on_step: Callable[[int, int], None] | None = None,
    dtype: torch.dtype | None = None,
    interrupted: Callable[[], bool] | None = None,
    control: ControlNet | None = None,
) -> Tensor:
    """Samples latents (n, 4, h, w), scaled as the UNet sees them, fp32 on the UNet's device.

    The positive and negative prompts go through the UNet in one call per step, in `dtype` (None:
    the UNet's); `guidance` 1 skips the negative. `prediction` is ``epsilon`` or ``v_prediction``.
    `on_step(done, steps)` is called after each UNet call. Raises RunCancelled if `interrupted()`
    is true before one, and ValueError for another prediction.
    """
    if prediction not in ("epsilon", "v_prediction"):
        raise ValueError(f"unknown prediction {prediction!r}: choose epsilon or v_prediction")
    predict = _cfg_predictor(unet, positive, negative, guidance, control, dtype or unet.dtype)
    sigmas = sigmas.float().cpu()  # scalars on the CPU: no GPU synchronisation
    timesteps = sigmas_to_timesteps(sigmas[:-1]).to(unet.device)

    def denoise(x: Tensor, i: int) -> Tensor:
        if interrupted is not None and interrupted():
            raise RunCancelled("Sampling was cancelled.")
        sigma, scale = sigmas[i], (sigmas[i] ** 2 + 1).sqrt()
        output = predict(x / scale, timesteps[i]).float()
        if on_step is not None:
            on_step(i + 1, len(sigmas) - 1)
        if prediction == "v_prediction":  # arXiv:2202.00512, appendix D
            return x / scale**2 - output * (sigma / scale)
        return x - output * sigma

    start = noise.to(unet.device, torch.float32) * _initial_noise_scale(sigmas[0])
    return {"euler": euler, "dpmpp_2m": dpmpp_2m}[solver](denoise, start, sigmas)


def _initial_noise_scale(sigma: Tensor) -> Tensor:
    """ComfyUI's scale of the initial noise: sqrt(1 + sigma^2) at the highest sigma, else sigma."""
    highest = float(sigma_table()[-1])
    full = float(sigma) > highest or math.isclose(float(sigma), highest, rel_tol=1e-5)
    return (sigma**2 + 1).sqrt() if full else sigma


def _cfg_predictor(
    unet: Any,
    positive: Tensor,
    negative: Tensor,
    guidance: float,
    control: ControlNet | None,
    dtype: torch.dtype,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The UNet's output under classifier-free guidance (arXiv:2207.12598), as f(x, timestep)."""
    alone = math.isclose(guidance, 1.0)
    parts = [positive] if alone else [positive, negative.expand_as(positive)]
    states = torch.cat(parts).to(unet.device, dtype)  # (n or 2n, t, d)

    def predict(x: Tensor, timestep: Tensor) -> Tensor:
        x = torch.cat([x] * len(parts)).to(dtype)
        down, middle = control(x, timestep, states) if control is not None else (None, None)
        output: Tensor = unet(
            x,
            timestep,
            encoder_hidden_states=states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        if alone:
            return output
        cond, uncond = output.float().chunk(2)
        return uncond + guidance * (cond - uncond)

    return predict


def euler(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """Euler steps of the probability-flow ODE: algorithm 2 of arXiv:2206.00364 without churn."""
    for i in range(len(sigmas) - 1):
        slope = (x - denoise(x, i)) / sigmas[i]
        x = x + slope * (sigmas[i + 1] - sigmas[i])
    return x


def dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor) -> Tensor:
    """DPM-Solver++(2M): algorithm 2 of arXiv:2211.01095, first order in the first and last step.

    With t = -log sigma and x in the variance-exploding scaling, the paper's alpha is 1.
    """
    t = -sigmas.log()
    previous = x  # the last estimate; unused in the first step
    for i in range(len(sigmas) - 1):
        current = denoise(x, i)
        estimate = current
        if i > 0 and sigmas[i + 1] > 0:
            r = (t[i] - t[i - 1]) / (t[i + 1] - t[i])
            estimate = current + (current - previous) / (2 * r)
        # exp(-(t[i + 1] - t[i])) is the ratio of the sigmas
        x = sigmas[i + 1] / sigmas[i] * x - torch.expm1(t[i] - t[i + 1]) * estimate
        previous = current
    return x


@torch.no_grad()
def decode(vae: Any, latents: Tensor, batch: int = 4) -> np.ndarray:
    """Decodes scaled latents (n, 4, h, w) to RGB (n, 8h, 8w, 3), uint8, `batch` at a time."""
    images = []
    for part in (latents / vae.config.scaling_factor).split(batch):
        pixels = vae.decode(part.to(vae.device, vae.dtype), return_dict=False)[0]  # -1 to 1
        pixels = (pixels.float() / 2 + 0.5).clamp(0, 1) * 255
        images.append(pixels.round().byte().permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(images)
