"""What 16-bit arithmetic learns is what fp32 learns: weights to train are held in fp32."""

import pytest
import torch
from accelerate import Accelerator
from likeness.trainers.loop import train
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset
from likeness.trainers.stop import StopSignal
from safetensors.torch import load_file

STEPS = 800


def change(places, precision, dtype):
    """All weights' change by DreamBooth at the study's rate, as one vector in fp64."""
    recipe = preset("standard").changed(
        subject={"resolution": 64},
        prior=None,
        schedule={"steps": STEPS},
        compute={"precision": precision, "attention": "sdpa"},
        optimizer={"name": "adamw"},
        saving={"dtype": dtype},
    )
    folder = prepare(recipe, places)
    stop = StopSignal(folder.stop)
    result = train(folder, Accelerator(cpu=True), lambda kind, **data: None, stop)
    before, after = load_file(places.base), load_file(result.adapter)
    parts = ("model.diffusion_model.", "cond_stage_model.")
    names = [n for n in before if n.startswith(parts) and before[n].is_floating_point()]
    return torch.cat([(after[n].double() - before[n].double()).flatten() for n in names])


@pytest.mark.timeout(1200)
def test_800_updates_of_2e_6_survive_16_bit_arithmetic_and_a_16_bit_file(places):
    reference = change(places, "fp32", "fp32")
    assert reference.abs().mean() > 2e-5  # it learned something
    learned = change(places, "bf16", "fp16")
    cosine = torch.nn.functional.cosine_similarity(learned, reference, dim=0).item()
    assert cosine >= 0.99
    assert learned.norm().item() == pytest.approx(reference.norm().item(), rel=0.05)
