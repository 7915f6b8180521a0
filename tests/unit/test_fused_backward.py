from types import SimpleNamespace

import pytest
import torch
from likeness.trainers import fused_backward
from likeness.trainers.fused_backward import FusedBackward, single_parameter


@pytest.fixture
def optimizer():
    first, second, third = (torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    return torch.optim.AdamW([{"params": [first, second]}, {"params": [third], "lr": 0.5}], lr=0.1)


def test_only_one_parameter_is_updated_with_its_groups_settings(optimizer):
    first, second = optimizer.param_groups[0]["params"]
    (third,) = optimizer.param_groups[1]["params"]
    for parameter in (first, second, third):
        parameter.grad = torch.ones(2)
    with single_parameter(optimizer, optimizer.param_groups[1], third):
        optimizer.step()
    assert torch.equal(first, torch.ones(2)) and torch.equal(second, torch.ones(2))
    assert third[0].item() == pytest.approx(0.5 - 0.5 * 0.01, abs=1e-5)
    assert set(optimizer.state) == {third}


def test_an_error_gives_the_optimizer_its_parameters_back(optimizer):
    group = optimizer.param_groups[0]
    with pytest.raises(RuntimeError), single_parameter(optimizer, group, group["params"][0]):
        raise RuntimeError
    assert [len(one["params"]) for one in optimizer.param_groups] == [2, 1]


@pytest.mark.parametrize("clip", [0.5, 100.0, None])
def test_gradients_are_clipped_as_pytorch_clips_them_and_never_enlarged(monkeypatch, clip):
    def moved(update):
        first, second = weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
        update(weights, torch.optim.SGD(weights, lr=1.0), 3 * first.sum() + 4 * second.sum())
        return torch.cat(weights).detach()

    def usual(weights, optimizer, loss):
        loss.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(weights, clip)
        optimizer.step()

    def in_the_backward_pass(weights, optimizer, loss):
        monkeypatch.setattr(fused_backward, "compute_losses", lambda *_: loss[None])
        update = FusedBackward(None, optimizer, clip)
        update(SimpleNamespace(weights=torch.ones(1), prior_count=0))

    assert torch.allclose(moved(in_the_backward_pass), moved(usual))
