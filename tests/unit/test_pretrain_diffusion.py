import pytest
import torch

pytest.importorskip("aggdraw", reason="draws the world")

from likeness.demo import miniature, pretrain_diffusion
from likeness.demo.pretrain_diffusion import FACE, face_weights


def people(nose, neck=(0.0, 0.0, 0.0)):
    joints = torch.zeros(1, 18, 3)
    joints[0, 0], joints[0, 1] = torch.tensor(nose), torch.tensor(neck)
    return joints


@pytest.mark.parametrize("shape", [(16, 12), (16, 16), (8, 8)])
def test_a_face_counts_more_than_what_is_around_it(shape):
    height, width = shape
    weights = face_weights(people((0.25, 0.3, 1.0), (0.25, 0.45, 1.0)), height, width)
    assert weights.shape == (1, 1, *shape)
    assert weights.mean() == pytest.approx(1)
    face = weights[0, 0, round(0.28 * height - 0.5), round(0.25 * width - 0.5)]
    assert face == weights.max()
    assert face / weights[0, 0, -1, -1] == pytest.approx(FACE)


def test_a_larger_face_takes_more_places():
    near, far = (
        (face_weights(people((0.5, 0.4, 1.0), (0.5, neck, 1.0)), 16, 16) > 1).sum()
        for neck in (0.8, 0.5)
    )
    assert near > 4 * far > 0


def test_the_neck_of_a_close_up_is_below_the_image():
    cut = face_weights(people((0.3, 0.5, 1.0)), 16, 12)
    assert torch.allclose(cut, face_weights(people((0.3, 0.5, 1.0), (0.3, 1.0, 1.0)), 16, 12))


def test_without_a_face_all_places_count_the_same():
    assert torch.equal(face_weights(people((0.0, 0.0, 0.0)), 16, 12), torch.ones(1, 1, 16, 12))


def test_where_says_what_the_loss_looks_at():
    torch.manual_seed(1)
    unet = miniature.new_unet()
    states, latents = torch.randn(2, 77, miniature.CONTEXT), torch.randn(2, 4, 8, 8)
    alphas = pretrain_diffusion.schedule(torch.device("cpu"))

    def losses(where):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            return pretrain_diffusion.losses(unet, states, latents, generator, alphas, where=where)

    everywhere = losses(None)
    assert torch.allclose(losses(torch.ones(2, 1, 8, 8))["loss"], everywhere["loss"])
    half = torch.zeros(2, 1, 8, 8)
    half[..., :4] = 2
    other = losses(half)
    assert not torch.allclose(other["loss"], everywhere["loss"], rtol=1e-3)
    assert torch.equal(other["noise"], everywhere["noise"]), "the plain error stays what it is"
    both = (other["loss"] + losses(2 - half)["loss"]) / 2
    assert torch.allclose(both, everywhere["loss"])
