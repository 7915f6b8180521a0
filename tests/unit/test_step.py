from types import SimpleNamespace

import pytest
import torch
from likeness.trainers.step import Learner, PromptEncoder, average_gradients, buckets, update


def test_gradients_are_averaged_in_few_messages():
    sent = []

    def reduce(flat, how):
        sent.append(flat.numel())
        return flat / 2

    gradients = [torch.full(shape, 4.0) for shape in [(3, 2), (5,), ()]]
    average_gradients(gradients, SimpleNamespace(reduce=reduce))
    assert sent == [12]
    assert all(torch.equal(g, torch.full_like(g, 2.0)) for g in gradients)


def test_buckets_keep_the_order_and_the_size():
    tensors = [torch.zeros(n) for n in (3, 3, 9, 1, 2)]
    sizes = [[t.numel() for t in bucket] for bucket in buckets(tensors, 6)]
    assert sizes == [[3, 3], [9], [1, 2]]


@pytest.fixture
def learner():
    text = torch.nn.Sequential(torch.nn.Dropout())
    return Learner(
        unet=torch.nn.Sequential(torch.nn.Dropout()),
        prompts=PromptEncoder(torch.zeros(1, 77), 1, text, embeddings=torch.ones(1, 77, 2)),
        alphas=torch.ones(1000),
        prediction="epsilon",
        min_snr_gamma=None,
        device=torch.device("cpu"),
        autocast_dtype=None,
    )


def test_evaluating_leaves_no_dropout_on_and_gives_back_what_was(learner):
    text = learner.prompts.text_encoder
    learner.unet.train()
    text.train()
    before = learner.prompts.embeddings
    with learner.eval_mode(reencode_prompts=True):
        assert not learner.unet.training and not text[0].training
        assert learner.prompts.embeddings is None
    assert learner.unet.training and text[0].training
    assert learner.prompts.embeddings is before
    with learner.eval_mode():
        assert learner.prompts.embeddings is before


def test_gradients_of_a_scaled_loss_are_clipped_at_their_own_size():
    weight = torch.nn.Parameter(torch.zeros(4))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(3 * weight.sum()).backward()
    alone = SimpleNamespace(num_processes=1)
    update([weight], torch.optim.SGD([weight], lr=1.0), scaler, 1.0, alone)
    assert weight.norm().item() == pytest.approx(1.0, rel=1e-5)
