import pytest
import torch

pytest.importorskip("aggdraw", reason="draws the world")

from likeness.demo import miniature
from likeness.demo.pretrain_parts import placed


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolutions_are_placed_in_the_layout_that_is_asked_for(layout):
    vae = miniature.new_vae(8)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    assert placed(vae, torch.device("cpu"), layout) is vae
    after = vae.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    weights = after["encoder.layers.10.weight"]
    assert weights.is_contiguous(memory_format=layout)
    assert weights.is_contiguous() == (layout is torch.contiguous_format)


def test_a_placed_model_keeps_its_layout_unless_another_is_asked_for():
    vae = miniature.new_vae(8)
    placed(vae, torch.device("cpu"), torch.channels_last)
    kept = placed(vae, torch.device("cpu")).state_dict()["encoder.layers.10.weight"]
    assert kept.is_contiguous(memory_format=torch.channels_last) and not kept.is_contiguous()
