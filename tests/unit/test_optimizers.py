import math
from typing import get_args

import pytest
import torch
from likeness.trainers.optimizers import (
    build_optimizer,
    effective_lr,
    lr_lambda,
    lr_rise_note,
    parameter_groups,
    set_lrs,
    slow_on_cpu_note,
)
from likeness.trainers.recipe import Optimizer, Recipe, Schedule


def weights(n=4):
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(64, 80)) for _ in range(n)]


@pytest.mark.parametrize("name", ["adamw", "adamw8bit", "prodigy"])
def test_each_optimizer_lowers_a_quadratic(name):
    if name == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    if name == "prodigy":
        pytest.importorskip("prodigyopt")
    params = weights()
    rate = 1.0 if name == "prodigy" else 1e-2
    spec = Optimizer(name=name, learning_rate=rate)
    optimizer = build_optimizer(spec, [{"params": params, "lr": rate}])
    first = None
    for _ in range(100):
        loss = sum(p.pow(2).mean() for p in params)
        first = first or loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.8 * first


def test_fused_adamw_steps_like_the_plain_one():
    mine, plain = weights(1), weights(1)
    a = build_optimizer(Optimizer(name="adamw"), [{"params": mine, "lr": 1e-3}])
    b = torch.optim.AdamW(plain, lr=1e-3, weight_decay=1e-2)
    for _ in range(5):
        for optimizer, (p,) in ((a, mine), (b, plain)):
            p.grad = torch.sin(p.detach() * 7)
            optimizer.step()
    assert torch.allclose(mine[0], plain[0], atol=1e-6)


def test_the_text_encoder_has_its_own_rate():
    recipe = Recipe().changed(text_encoder={"learning_rate": 5e-5})
    unet, text = weights(2), weights(1)
    groups = parameter_groups(recipe, unet, text)
    assert [group["lr"] for group in groups] == [1e-4, 5e-5]
    assert len(parameter_groups(recipe, unet, [])) == 1


def test_rates_follow_the_course_from_any_step():
    schedule = Schedule(steps=100, lr_scheduler="linear", lr_warmup_steps=10)
    factor = lr_lambda(schedule)
    assert [factor(s) for s in (0, 5, 10, 55)] == [0.0, 0.5, 1.0, 0.5]
    assert all(lr_lambda(Schedule())(s) == 1 for s in (0, 400, 799))
    optimizer = build_optimizer(Optimizer(name="adamw"), [{"params": weights(1), "lr": 2.0}])
    for step in (5, 10, 5):
        set_lrs(optimizer, factor(step))
        assert optimizer.param_groups[0]["lr"] == 2.0 * factor(step)


def test_a_falling_course_that_is_continued_jumped_back_up_without_a_word():
    def recipe(steps, **parts):
        return (
            Recipe().changed(schedule={"steps": steps, "lr_scheduler": "cosine"}).changed(**parts)
        )

    note = lr_rise_note(recipe(400), recipe(800), 400)
    assert "from 1.5e-09 to 5e-05" in note and "'cosine'" in note and "800 steps" in note
    assert "to 1e-05" in lr_rise_note(
        recipe(400), recipe(800, optimizer={"learning_rate": 2e-5}), 400
    )
    assert lr_rise_note(recipe(400), recipe(400), 200) is None
    assert lr_rise_note(recipe(800), recipe(400), 200) is None
    flat = {"schedule": {"lr_scheduler": "constant"}}
    other = recipe(800, **flat, optimizer={"learning_rate": 1e-3})
    assert lr_rise_note(recipe(400, **flat), other, 400) is None, "it was asked for"
    warming = {"schedule": {"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 100}}
    assert lr_rise_note(recipe(400, **warming), recipe(800, **warming), 50) is None


def test_prodigys_rate_was_told_as_its_factor():
    pytest.importorskip("prodigyopt")
    (weight,) = weights(1)
    optimizer = build_optimizer(Optimizer(name="prodigy"), [{"params": [weight], "lr": 1.0}])
    set_lrs(optimizer, 0.5)
    assert effective_lr(optimizer) == pytest.approx(0.5e-6)  # it begins with that
    optimizer.param_groups[0]["d"] = 3e-4
    assert effective_lr(optimizer) == pytest.approx(1.5e-4)
    plain = build_optimizer(Optimizer(name="adamw"), [{"params": [weight], "lr": 2.0}])
    set_lrs(plain, 0.5)
    assert effective_lr(plain) == 1.0


STEPS, WARMUP = 40, 8


def share(step):
    """How far a step is in what comes after the warm-up, 0 to 1."""
    return (step - WARMUP) / (STEPS - WARMUP)


FACTORS = {
    "constant": lambda step: 1.0,
    "constant_with_warmup": lambda step: 1.0,
    "linear": lambda step: 1 - share(step),
    "cosine": lambda step: (1 + math.cos(math.pi * share(step))) / 2,
    "cosine_with_restarts": lambda step: (1 + math.cos(math.pi * (3 * share(step) % 1))) / 2,
    "polynomial": lambda step: (1 - share(step)) ** 2.5,
}


@pytest.mark.parametrize("scheduler", FACTORS)
def test_each_scheduler_has_its_closed_form(scheduler):
    assert set(FACTORS) == set(get_args(Schedule.model_fields["lr_scheduler"].annotation))
    warmup = 0 if scheduler == "constant" else WARMUP
    schedule = Schedule(
        steps=STEPS, lr_scheduler=scheduler, lr_warmup_steps=warmup, lr_num_cycles=3, lr_power=2.5
    )
    factor = lr_lambda(schedule)
    assert [factor(step) for step in range(warmup)] == [step / WARMUP for step in range(warmup)]
    for step in range(WARMUP, STEPS):
        assert factor(step) == pytest.approx(FACTORS[scheduler](step), abs=1e-6), step


@pytest.mark.parametrize(
    ("name", "package"),
    [("adamw", "torch"), ("adamw8bit", "bitsandbytes"), ("prodigy", "prodigyopt")],
)
def test_the_numbers_of_the_recipe_are_the_optimizers(name, package):
    pytest.importorskip(package)
    numbers = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-6, "weight_decay": 0.25}
    spec = Optimizer(name=name, **numbers)
    (group,) = build_optimizer(spec, [{"params": weights(1), "lr": 0.5}]).param_groups
    found = {key: group[key] for key in ("lr", "eps", "weight_decay")}
    assert found == {"lr": 0.5, "eps": 1e-6, "weight_decay": 0.25}
    assert tuple(group["betas"]) == (0.8, 0.95)


def test_a_run_says_that_8_bit_adam_is_slow_on_a_cpu():
    eight_bit = Optimizer(name="adamw8bit")
    said = slow_on_cpu_note(eight_bit, 983_000_000, "cpu")
    assert "optimizer.name=adamw" in said
    assert "983 million" in said
    assert "5.9 GB" in said
    assert slow_on_cpu_note(eight_bit, 983_000_000, "cuda") is None
    assert slow_on_cpu_note(eight_bit, 1_000_000, "cpu") is None  # a LoRA
    assert slow_on_cpu_note(Optimizer(name="adamw"), 983_000_000, "cpu") is None


def test_8_bit_adam_does_not_wait_for_the_gpu_after_each_weight(monkeypatch):
    """bitsandbytes does, though only states that are paged to the host need it."""
    pytest.importorskip("bitsandbytes")
    from bitsandbytes.optim import AdamW8bit
    from bitsandbytes.optim import optimizer as steps

    waits = []
    monkeypatch.setattr(steps, "sync_gpu", waits.append)
    weights = torch.nn.Parameter(torch.zeros(8192))
    weights.grad = torch.ones_like(weights)
    AdamW8bit([weights]).step()
    assert waits, "bitsandbytes waits by another name, or no more"
    waits.clear()
    groups = [{"params": [weights], "lr": 1e-3}]
    build_optimizer(Optimizer(name="adamw8bit"), groups).step()
    assert not waits
