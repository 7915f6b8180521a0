"""Prior preservation by a teacher: the model keeps what the base predicts, without class images."""

import pytest
import torch
from accelerate import Accelerator
from likeness.trainers import loop
from likeness.trainers.base_model import load_base
from likeness.trainers.errors import RecipeError
from likeness.trainers.lora import adapters_disabled, attach, trainable_parameters
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset
from likeness.trainers.recipe import LoRA
from likeness.trainers.stop import StopSignal
from likeness.trainers.teacher import build_teacher
from likeness.trainers.text_encoding import encode_text
from torch.utils._python_dispatch import TorchDispatchMode


def recipe(kind, **parts):
    taught = preset("lora-r4").changed(
        method={"kind": kind},
        subject={"resolution": 64},
        prior={"source": "teacher"},
        schedule={"steps": 6},
        optimizer={"name": "adamw", "learning_rate": 1e-2},
        compute={"precision": "fp32", "attention": "sdpa"},
    )
    return taught.changed(**parts)


def trained(recipe, places):
    """The run's result, and the class images' loss of each step."""
    folder, told = prepare(recipe, places), []

    def emit(kind, **data):
        if kind == "step":
            told.append(data["prior_loss"])

    return loop.train(folder, Accelerator(cpu=True), emit, StopSignal(folder.stop)), told


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
def test_what_has_learned_nothing_predicts_what_the_base_predicts(places, kind):
    result, prior = trained(recipe(kind), places)
    assert prior[0] == pytest.approx(0, abs=1e-12)
    assert all(loss > 1e-6 for loss in prior[1:])
    assert len(set(result.losses)) == 6
    assert not (places.cache / "class_images").exists()


def test_the_teacher_is_asked_with_the_prompt_that_the_model_is_asked_with(places):
    """A model that learns next to nothing predicts what the base does, of each class prompt."""
    still, prompts = {"learning_rate": 1e-12}, {"prompt": "a photo of man\na man\nman"}
    few = {"batch_size": 2, "steps": 6}
    exact = {"dtype": "fp32"}  # where so little is not 0, and so can be saved
    asked = recipe("lora", prior=prompts, optimizer=still, schedule=few, saving=exact)
    _, prior = trained(asked, places)
    assert prior == pytest.approx([0] * 6, abs=1e-9)


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
def test_the_teacher_holds_the_model_back(places, kind):
    """With a large weight the model moves away from the base's predictions less."""
    few = {"steps": 15}
    light = trained(recipe(kind, prior={"loss_weight": 1e-6}, schedule=few), places)[1]
    heavy = trained(recipe(kind, prior={"loss_weight": 10.0}, schedule=few), places)[1]
    assert sum(heavy[-5:]) / 10.0 < 0.5 * sum(light[-5:]) / 1e-6


def test_a_resumed_run_has_the_same_teacher(places, monkeypatch):
    unbroken, _ = trained(recipe("dreambooth", saving={"every": 3}), places)
    stop_at = loop.training_step

    def broken(run, training, backward, step, **given):
        if step == 4:
            raise KeyboardInterrupt
        return stop_at(run, training, backward, step, **given)

    again = recipe("dreambooth", saving={"every": 3}, attempt=1)
    monkeypatch.setattr(loop, "training_step", broken)
    with pytest.raises(KeyboardInterrupt):
        trained(again, places)
    monkeypatch.undo()
    resumed, _ = trained(again, places)
    assert resumed.losses == unbroken.losses


def test_the_teacher_of_a_lora_is_the_base_whatever_the_lora_has_learned(places):
    base, other = load_base(places.base), load_base(places.base)
    ids = torch.zeros(1, 77, dtype=torch.int64)
    taught = build_teacher(recipe("lora"), base, ids, torch.float32)
    attach(base.unet, None, LoRA(rank=2), seed=0)
    noisy, timestep = torch.randn(1, 4, 8, 8), torch.tensor([3])
    with torch.no_grad():
        for parameter in trainable_parameters(base.unet, None).values():
            parameter.add_(0.1)
        wanted = other.unet(noisy, timestep, taught.embeddings).sample
        assert not torch.equal(base.unet(noisy, timestep, taught.embeddings).sample, wanted)
    assert torch.equal(taught.predict(noisy, timestep, torch.tensor([0])), wanted)


class Fp32(TorchDispatchMode):
    """Counts the values of new fp32 tensors."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        made = isinstance(result, torch.Tensor) and func is not torch.ops.aten.detach.default
        if made and result.dtype == torch.float32:
            self.values += result.numel()
        return result


def test_a_teacher_in_16_bits_is_copied_without_a_second_model_in_32(places):
    base = load_base(places.base)
    base.unet.requires_grad_(False)
    ids = torch.zeros(1, 77, dtype=torch.int64)
    with torch.no_grad():
        width = encode_text(base.text_encoder, ids, 1).shape[-1]
        given = torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 77, width)
        wanted = base.unet(*given).sample
    with Fp32() as made:
        taught = build_teacher(recipe("dreambooth"), base, ids, torch.bfloat16)
    assert made.values < sum(p.numel() for p in base.unet.parameters()) / 2
    assert {p.dtype for p in taught.unet.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in base.unet.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in taught.unet.parameters())
    with torch.no_grad():
        taught.unet.float()
        assert torch.allclose(taught.unet(*given).sample, wanted, atol=0.05)
        for parameter in base.unet.parameters():
            parameter.zero_()  # the teacher has its own
        assert torch.allclose(taught.unet(*given).sample, wanted, atol=0.05)


def test_a_teacher_in_32_bits_has_weights_of_its_own(places):
    base = load_base(places.base)
    ids = torch.zeros(1, 77, dtype=torch.int64)
    taught = build_teacher(recipe("dreambooth"), base, ids, torch.float32)
    for one, other in zip(base.unet.parameters(), taught.unet.parameters(), strict=True):
        assert torch.equal(one, other) and one.data_ptr() != other.data_ptr()


def test_images_and_a_teacher_exclude_each_other():
    with pytest.raises(RecipeError, match=r"prior\.images"):
        recipe("lora", prior={"images": "a" * 64})


@pytest.mark.parametrize("special", [{}, {"dora": True}, {"dropout": 0.5}])
def test_a_model_without_its_adapters_is_the_base(places, special):
    base, other = load_base(places.base), load_base(places.base)
    attach(base.unet, None, LoRA(rank=2, **special), seed=0)
    parameters = trainable_parameters(base.unet, None).values()
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1)
    width = other.unet.config.cross_attention_dim
    given = torch.randn(1, 4, 8, 8), torch.tensor(3), torch.randn(1, 77, width)
    with torch.no_grad(), adapters_disabled(base.unet):
        assert torch.equal(base.unet(*given).sample, other.unet(*given).sample)
    assert not torch.equal(base.unet(*given).sample, other.unet(*given).sample)
    assert all(parameter.requires_grad for parameter in parameters)
