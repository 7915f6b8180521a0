"""The two solvers against diffusers' schedulers, on the same UNet, noise, sigmas and timesteps."""

import runpy
from pathlib import Path

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from likeness.trainers.sampler import (
    calculate_sigmas,
    prepare_noise,
    sample,
    sigma_table,
    sigmas_to_timesteps,
)

# numpy's, about how diffusers calls it
pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))

SD15 = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
STEPS, GUIDANCE = 20, 7.5


@pytest.fixture(scope="module")
def unet():
    return MODELS["small_unet"]()


@pytest.fixture(scope="module")
def inputs():
    torch.manual_seed(1)
    return torch.randn(2, 77, 16), torch.randn(1, 77, 16), prepare_noise([3, 4], 64, 64)


@torch.no_grad()
def drawn_by_diffusers(unet, scheduler, positive, negative, latents):
    states = torch.cat([negative.expand_as(positive), positive])
    for t in scheduler.timesteps:
        x = scheduler.scale_model_input(torch.cat([latents] * 2), t)
        uncond, cond = unet(x, t, encoder_hidden_states=states).sample.chunk(2)
        output = uncond + GUIDANCE * (cond - uncond)
        latents = scheduler.step(output, t, latents).prev_sample
    return latents


def drawn_by_us(unet, inputs, solver, prediction):
    positive, negative, noise = inputs
    return sample(
        unet, positive, negative, noise, sigmas=calculate_sigmas(STEPS), guidance=GUIDANCE,
        solver=solver, prediction=prediction,
    )  # fmt: skip


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_euler(unet, inputs, prediction):
    # "leading" is the spacing with which diffusers scales the first noise as ComfyUI does
    scheduler = EulerDiscreteScheduler(
        **SD15, prediction_type=prediction, timestep_spacing="leading"
    )
    scheduler.set_timesteps(timesteps=sigmas_to_timesteps(calculate_sigmas(STEPS)[:-1]).tolist())
    positive, negative, noise = inputs
    start = noise * scheduler.init_noise_sigma
    assert float(scheduler.init_noise_sigma) == pytest.approx(14.6488, rel=1e-5)
    theirs = drawn_by_diffusers(unet, scheduler, positive, negative, start)
    ours = drawn_by_us(unet, inputs, "euler", prediction)
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_dpmpp_2m(unet, inputs, prediction):
    scheduler = DPMSolverMultistepScheduler(
        **SD15, prediction_type=prediction, final_sigmas_type="zero", euler_at_final=True
    )
    scheduler.set_timesteps(timesteps=sigmas_to_timesteps(calculate_sigmas(STEPS)[:-1]).tolist())
    positive, negative, noise = inputs
    # diffusers works in the variance-preserving scaling, where the first noise has norm 1
    theirs = drawn_by_diffusers(unet, scheduler, positive, negative, noise.clone())
    ours = drawn_by_us(unet, inputs, "dpmpp_2m", prediction)
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_the_table_is_that_of_diffusers():
    theirs = EulerDiscreteScheduler(**SD15)
    alpha = theirs.alphas_cumprod.double()
    torch.testing.assert_close(
        sigma_table(), ((1 - alpha) / alpha).sqrt().float(), rtol=1e-4, atol=0
    )
