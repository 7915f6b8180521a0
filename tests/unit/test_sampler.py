"""Sigmas, noise, guidance and the solvers, against frozen facts and closed forms."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from likeness.trainers.errors import RunCancelled
from likeness.trainers.sampler import (
    calculate_sigmas,
    decode,
    dpmpp_2m,
    euler,
    prepare_noise,
    sample,
    sigma_table,
    sigmas_to_timesteps,
)

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))

# Written by ComfyUI 0.33.0: comfy.samplers.calculate_sigmas(model_sampling, name, 8).
CORE_SIGMAS = {
    "simple": [14.6146, 7.29735, 4.08173, 2.49253, 1.61289, 1.06895, 0.693205, 0.397746, 0.0],
    "normal": [14.6146, 6.678, 3.52206, 2.06064, 1.27683, 0.79126, 0.439666, 0.0291672, 0.0],
    "karras": [14.6146, 7.90293, 4.02774, 1.91036, 0.828868, 0.32112, 0.107198, 0.0291672, 0.0],
}


@pytest.fixture(scope="module")
def unet():
    return MODELS["small_unet"]()


def states(n, seed=0):
    return torch.randn(n, 77, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scheduler", CORE_SIGMAS)
def test_sigmas_are_those_of_comfyui(scheduler):
    torch.testing.assert_close(
        calculate_sigmas(8, scheduler), torch.tensor(CORE_SIGMAS[scheduler]), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("scheduler", CORE_SIGMAS)
@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
def test_sigmas_fall_from_the_highest_to_zero(scheduler, steps):
    sigmas = calculate_sigmas(steps, scheduler)
    assert sigmas.shape == (steps + 1,)
    assert sigmas[0] == pytest.approx(14.6146, rel=1e-5)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize(("steps", "scheduler"), [(0, "simple"), (1001, "normal"), (5, "exotic")])
def test_impossible_sigmas_are_refused(steps, scheduler):
    with pytest.raises(ValueError, match=r"steps|scheduler"):
        calculate_sigmas(steps, scheduler)


def test_timesteps_of_the_table_are_its_indices():
    assert sigmas_to_timesteps(sigma_table()).tolist() == list(range(1000))


def test_noise_of_an_image_does_not_depend_on_its_batch():
    pair = prepare_noise([7, 8], 64, 128)
    assert pair.shape == (2, 4, 8, 16)
    assert torch.equal(pair[1:], prepare_noise([8], 64, 128))
    torch.manual_seed(8)  # how ComfyUI draws the noise of one image
    assert torch.equal(pair[1:], torch.randn(1, 4, 8, 16))


def gaussian_denoiser(sigmas, spread):
    """The best estimate of x0 when the data are normal with standard deviation `spread`."""
    return lambda x, i: x * spread**2 / (spread**2 + sigmas[i] ** 2)


@pytest.mark.parametrize(("solver", "order"), [(euler, 1), (dpmpp_2m, 2)])
def test_solvers_converge_to_the_closed_form_at_their_order(solver, order):
    spread, start = 0.5, torch.tensor([1.0], dtype=torch.float64)
    exact = start * spread / (spread**2 + calculate_sigmas(1)[0].double() ** 2).sqrt()

    def error(steps):
        sigmas = calculate_sigmas(steps, "karras").double()
        return float((solver(gaussian_denoiser(sigmas, spread), start, sigmas) / exact - 1).abs())

    assert error(80) < error(20) / 4**order * 1.6
    assert error(80) < (0.05 if order == 1 else 0.005)


@pytest.mark.parametrize("solver", ["euler", "dpmpp_2m"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_model_that_knows_the_image_draws_it(solver, prediction):
    image = torch.randn(1, 4, 4, 4)

    class Knowing:
        device, dtype = torch.device("cpu"), torch.float32

        def __call__(self, x, timestep, **_):
            sigma = sigma_table()[timestep]
            alpha = 1 / (sigma**2 + 1).sqrt()
            epsilon = (x - alpha * image) / (alpha * sigma)
            v = alpha * epsilon - alpha * sigma * image
            return (epsilon if prediction == "epsilon" else v,)

    drawn = sample(
        Knowing(),
        states(1),
        states(1),
        prepare_noise([1], 32, 32),
        sigmas=calculate_sigmas(6),
        guidance=1.0,
        solver=solver,
        prediction=prediction,
    )
    torch.testing.assert_close(drawn, image, rtol=1e-3, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch(unet):
    both = {"sigmas": calculate_sigmas(3), "guidance": 5.0}
    pair = sample(unet, states(2), states(1, 9), prepare_noise([1, 2], 64, 64), **both)
    alone = sample(unet, states(2)[1:], states(1, 9), prepare_noise([2], 64, 64), **both)
    torch.testing.assert_close(pair[1:], alone, rtol=1e-4, atol=1e-4)


def test_guidance_one_leaves_the_negative_out(unet):
    sizes = []
    handle = unet.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    same = {"noise": prepare_noise([1], 64, 64), "sigmas": calculate_sigmas(2)}
    a = sample(unet, states(1), states(1, 5), guidance=1.0, **same)
    b = sample(unet, states(1), states(1, 6), guidance=1.0, **same)
    c = sample(unet, states(1), states(1, 6), guidance=3.0, **same)
    handle.remove()
    assert torch.equal(a, b)
    assert not torch.equal(b, c)
    assert sizes == [1, 1, 1, 1, 2, 2]


def test_half_precision_keeps_its_state_in_fp32(unet):
    same = {"noise": prepare_noise([1], 64, 64), "sigmas": calculate_sigmas(4), "guidance": 3.0}
    full = sample(unet, states(1), states(1, 5), **same)
    half = sample(unet.to(torch.bfloat16), states(1), states(1, 5), **same)
    unet.float()
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.02 * full.norm()


def test_steps_are_told_and_can_be_interrupted(unet):
    told = []
    with pytest.raises(RunCancelled):
        sample(
            unet,
            states(1),
            states(1),
            prepare_noise([1], 64, 64),
            sigmas=calculate_sigmas(5),
            guidance=1.0,
            on_step=lambda done, steps: told.append((done, steps)),
            interrupted=lambda: len(told) == 2,
        )
    assert told == [(1, 5), (2, 5)]


def test_control_residuals_reach_the_unet(unet):
    calls = []

    def control(x, timestep, context):
        calls.append((x.shape[0], context.shape[0], int(timestep)))
        skips = [(16, 8), (16, 8), (16, 4), (32, 4)]
        down = [torch.full((len(x), c, s, s), 0.5) for c, s in skips]
        return down, torch.full((len(x), 32, 4, 4), 0.5)

    same = {"noise": prepare_noise([1], 64, 64), "sigmas": calculate_sigmas(2), "guidance": 3.0}
    free = sample(unet, states(1), states(1, 5), **same)
    led = sample(unet, states(1), states(1, 5), control=control, **same)
    assert calls == [(2, 2, 999), (2, 2, 499)]
    assert (led - free).abs().max() > 1e-2


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_decode_gives_images_whatever_the_batch(kind):
    torch.manual_seed(0)
    if kind == "kl":
        vae = AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=4, latent_channels=4,
                            down_block_types=("DownEncoderBlock2D",) * 4,
                            up_block_types=("UpDecoderBlock2D",) * 4)  # fmt: skip
    else:
        vae = AutoencoderTiny(encoder_block_out_channels=(8,) * 4,
                              decoder_block_out_channels=(8,) * 4)  # fmt: skip
    latents = torch.randn(3, 4, 4, 6)
    images = decode(vae.eval(), latents, batch=2)
    assert images.shape == (3, 32, 48, 3)
    assert images.dtype == np.uint8
    with torch.no_grad():
        direct = vae.decode(latents / vae.config.scaling_factor).sample
    expected = ((direct / 2 + 0.5).clamp(0, 1) * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(images - expected).max() <= 0.51
