"""What is recorded as a CUDA graph may neither read from the device nor copy to it.

Without a GPU this is asked of the device `meta`, whose tensors have no values to be read.
"""

import pytest
import torch
from likeness.trainers import dreambooth, lora
from likeness.trainers.base_model import load_base
from likeness.trainers.batches import Batch
from likeness.trainers.compute import enable_gradient_checkpointing
from likeness.trainers.objective import alphas_cumprod
from likeness.trainers.presets import preset
from likeness.trainers.step import Learner, PromptEncoder, forward_backward
from likeness.trainers.teacher import Teacher
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

META = torch.device("meta")


class OneDevice(TorchDispatchMode):
    """Notes the operations that go from one device to another."""

    def __init__(self):
        super().__init__()
        self.crossed = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, torch.Tensor)]
        if len({tensor.device.type for tensor in tensors}) > 1:
            self.crossed.append(str(func))
        return result


def attached(recipe, base):
    """Attaches what a recipe trains; returns the function that names its parameters."""
    if recipe.method.kind == "lora":
        lora.attach(base.unet, base.text_encoder, recipe.method, seed=0)
        return lora.trainable_parameters
    dreambooth.attach(base.unet, base.text_encoder)
    return dreambooth.trainable_parameters


def zeros(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype, device=META)


@pytest.mark.parametrize("memory", ["full", "checkpointing"])
@pytest.mark.parametrize("prior", ["images", "teacher"])
@pytest.mark.parametrize(
    "method",
    [{"kind": "lora"}, {"kind": "lora", "targets": "all", "dora": True}, {"kind": "dreambooth"}],
    ids=["lora", "dora", "dreambooth"],
)
def test_a_step_reads_nothing_from_its_device(places, method, prior, memory):
    recipe = preset("lora-r4").changed(method=method, prior={"source": prior})
    base = load_base(places.base)
    parameters = attached(recipe, base)
    if memory == "checkpointing":
        enable_gradient_checkpointing(base, recipe)
    for model in (base.unet, base.text_encoder):
        torch.nn.Module.to(model.train(), META)
    prompts = PromptEncoder(zeros(2, 77, dtype=torch.int64), 1, base.text_encoder)
    width = base.unet.config.cross_attention_dim
    adapters = recipe.method.kind == "lora"
    teacher = Teacher(base.unet, zeros(2, 77, width), adapters) if prior == "teacher" else None
    learner = Learner(
        base.unet, prompts, alphas_cumprod().to(META), "v_prediction", 5.0, META, None, teacher
    )
    numbers = (zeros(2, dtype=torch.int64) for _ in range(3))
    batch = Batch(zeros(2, 4, 8, 8), zeros(2, 4, 8, 8), *numbers, zeros(2), zeros(2, 1, 8, 8), 1)
    scaler = torch.amp.GradScaler("cpu")  # as on a GPU, its factor stays on the device
    with OneDevice() as device:
        losses = forward_backward(learner, scaler, batch)
    assert not device.crossed
    assert losses.shape == (2,) and losses.device == META
    trained = parameters(base.unet, base.text_encoder).values()
    assert trained and all(parameter.grad is not None for parameter in trained)
