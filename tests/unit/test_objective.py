import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from likeness.trainers import objective

SCHEDULER = DDPMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000
)
T = torch.tensor([0, 250, 999])


def pair():
    torch.manual_seed(0)
    return torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)


def test_noising_and_velocity_are_those_of_diffusers():
    latents, noise = pair()
    alphas = objective.alphas_cumprod()
    noisy = objective.add_noise(latents, noise, T, alphas)
    assert torch.allclose(noisy, SCHEDULER.add_noise(latents, noise, T), atol=1e-6)
    v = objective.prediction_target(latents, noise, T, alphas, "v_prediction")
    assert torch.allclose(v, SCHEDULER.get_velocity(latents, noise, T), atol=1e-6)
    assert objective.prediction_target(latents, noise, T, alphas, "epsilon") is noise


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_the_paper(prediction):
    snr = compute_snr(SCHEDULER, T)
    capped = torch.minimum(snr, torch.full_like(snr, 5.0))
    expected = capped / (snr if prediction == "epsilon" else snr + 1)
    got = objective.min_snr_weights(T, objective.alphas_cumprod(), 5.0, prediction)
    assert torch.allclose(got, expected, rtol=1e-5)
    assert (
        objective.min_snr_weights(T, objective.alphas_cumprod(), None, prediction).tolist()
        == [1] * 3
    )


def test_offset_noise_moves_each_channel_by_its_shift():
    _, noise = pair()
    shift = torch.randn(3, 4, 1, 1)
    moved = objective.offset_noise(noise, shift, 0.1)
    assert torch.allclose((moved - noise).std(dim=(2, 3)), torch.zeros(3, 4), atol=1e-6)
    assert torch.allclose((moved - noise).mean(dim=(2, 3)), 0.1 * shift[..., 0, 0], atol=1e-6)


def test_losses_are_means_of_each_sample_in_fp32():
    a, b = pair()
    losses = objective.sample_losses(a.half(), b)
    assert losses.dtype == torch.float32
    expected = torch.stack([torch.nn.functional.mse_loss(x, y) for x, y in zip(a, b, strict=True)])
    assert torch.allclose(losses, expected, rtol=1e-2)
