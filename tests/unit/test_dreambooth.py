import torch
from likeness.trainers.dreambooth import trainable_parameters
from torch import nn


def of_transformers(text_model: bool) -> nn.Module:
    """A text encoder's layers as transformers 4 or 5 nest them."""
    text = nn.Module()
    text.final_layer_norm = nn.LayerNorm(2)
    if not text_model:
        return text
    whole = nn.Module()
    whole.text_model = text
    return whole


def test_a_run_goes_on_after_transformers_is_upgraded_from_4_to_5():
    unet = nn.Sequential(nn.Linear(2, 2))
    before, after = (
        trainable_parameters(unet, of_transformers(nested)) for nested in (True, False)
    )
    assert list(before) == list(after)
    assert list(after)[-1] == "text_encoder.final_layer_norm.bias"
    assert torch.equal(after["unet.0.weight"], unet[0].weight)
