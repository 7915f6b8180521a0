"""The running mean of the weights."""

from types import SimpleNamespace

import torch
from diffusers.training_utils import EMAModel
from likeness.trainers.checkpoint import TrainingState
from likeness.trainers.ema import ema_weights, update_ema


def state_of(**values):
    parameters = {name: torch.nn.Parameter(torch.tensor([x])) for name, x in values.items()}
    named = {name.replace("_x", ".x"): parameter for name, parameter in parameters.items()}
    ema = EMAModel(named.values(), decay=0.5, min_decay=0.5)
    return TrainingState(named, SimpleNamespace(), SimpleNamespace(), ema)


def move(state, by):
    with torch.no_grad():
        for parameter in state.parameters.values():
            parameter += by


def means(state):
    return [mean.item() for mean in state.ema.shadow_params]


def test_the_mean_of_a_text_encoder_stays_what_it_was_when_it_froze():
    state = state_of(unet_x=0.0, text_encoder_x=0.0)
    for by in (1.0, 1.0):
        move(state, by)
        update_ema(state, text_frozen=False)
    before = means(state)
    assert 0 < before[0] == before[1] < 2
    for _ in range(20):
        update_ema(state, text_frozen=True)
    unet, text = means(state)
    assert text == before[1] and before[0] < unet <= 2
    with ema_weights(state):
        assert [parameter.item() for parameter in state.parameters.values()] == [unet, text]
    assert [parameter.item() for parameter in state.parameters.values()] == [2.0, 2.0]


def test_a_run_without_a_mean_is_left_alone():
    state = state_of(unet_x=1.0)
    state.ema = None
    update_ema(state, text_frozen=False)
    with ema_weights(state):
        assert state.parameters["unet.x"].item() == 1.0
