"""What a run measures while it works."""

from types import SimpleNamespace

import pytest
import torch
from likeness.trainers import run
from likeness.trainers.errors import Diverged
from likeness.trainers.recipe import Recipe


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(run.time, "perf_counter", lambda: now.seconds)
    return now


@pytest.fixture
def told():
    """A run that keeps what it says of its steps."""
    said = []
    return SimpleNamespace(
        recipe=Recipe(),
        losses=[],
        said=said,
        memory=lambda: 0,
        emit=lambda kind, **data: said.append((data["step"], data["seconds"])),
    )


def unscaled():
    return torch.amp.GradScaler("cpu", enabled=False)


def test_gradients_that_always_overflow_in_fp16_ended_a_run_as_finished(clock, told):
    told.recipe = Recipe().changed(compute={"precision": "fp16"})
    weight = torch.nn.Parameter(torch.zeros(2))
    scaler, optimizer = torch.amp.GradScaler("cpu"), torch.optim.SGD([weight])
    meter = run.StepLogger(told, 0, scaler)
    with pytest.raises(
        Diverged, match=r"overflowing in fp16 .* step 1[6-9], .*precision bf16 or fp32"
    ):
        for _ in range(40):
            scaler.scale(weight.sum()).backward()
            weight.grad.fill_(float("inf"))
            scaler.step(optimizer)
            scaler.update()
            meter.add(torch.ones(2), 1e-4)
            meter.flush()
    assert weight.tolist() == [0, 0]


def test_the_step_after_a_preview_or_checkpoint_has_its_own_time_alone(clock, told):
    meter, losses = run.StepLogger(told, 4, unscaled()), torch.ones(2)
    for pause in (0.0, 60.0, 0.0):
        clock.seconds += 2
        meter.add(losses, 1e-4)
        with meter.paused():
            clock.seconds += pause
    assert told.said == [(5, 2.0), (6, 2.0), (7, 2.0)]


def test_steps_that_are_read_together_share_their_time(clock, told):
    meter = run.StepLogger(told, 0, unscaled())
    for _ in range(run.FLUSH_STEPS):
        clock.seconds += run.FLUSH_SECONDS / (2 * run.FLUSH_STEPS)
        meter.add(torch.ones(2), 1e-4)
    assert [step for step, _ in told.said] == list(range(1, run.FLUSH_STEPS + 1))
    assert [seconds for _, seconds in told.said] == pytest.approx([0.0125] * run.FLUSH_STEPS)


def test_a_note_is_said_once_though_the_run_starts_again_in_another_memory_tier():
    said = []
    one = run.Run(
        *(None, Recipe(), None, None), lambda kind, **data: said.append(data["text"]), None, "fp32"
    )
    for text in ("a prompt is cut", "out of memory", "a prompt is cut"):
        one.note(text)
    assert said == one.notes == ["a prompt is cut", "out of memory"]


def test_the_peak_of_a_memory_tier_that_ran_out_was_said_of_the_next_one():
    accelerator = SimpleNamespace(device=torch.device("cpu"))
    one = run.Run(None, Recipe(), None, accelerator, None, None, "fp32", peak_memory=1 << 60)
    assert one.memory() == 1 << 60
    one.reset_peak_memory()
    assert one.memory() < 1 << 60
