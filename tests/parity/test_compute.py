"""Whole small runs in each way of computing them: what is learned stays the same."""

import json
import runpy
import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from likeness.trainers import compute, loop, memory_tiers, tier_choice
from likeness.trainers.errors import BaseModelError, OutOfMemory, RunFailed
from likeness.trainers.optimizers import eight_bit_error
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset
from likeness.trainers.run_folder import saved_steps
from likeness.trainers.step import Learner
from likeness.trainers.stop import StopSignal
from safetensors.torch import load_file

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))


class Repeater:
    """Records without a GPU: it repeats the work with the tensors of the recording."""

    recorded = 0

    def capture(self, work, *, save_memory=False):
        work()
        output = work()
        Repeater.recorded += 1
        return lambda: output.copy_(work()), output


@pytest.fixture(scope="module")
def places(places):
    return places.model_copy(update={"class_images": places.photos})


def recipe(kind="dreambooth", **parts):
    small = preset("lora-r4").changed(
        method={"kind": kind},
        subject={"resolution": 64},
        schedule={"steps": 4},
        optimizer={"name": "adamw", "learning_rate": 1e-3},
        compute={"precision": "fp32", "attention": "sdpa"},
        saving={"dtype": "fp32"},
    )
    return small.changed(**parts)


def trained(recipe, places):
    folder = prepare(recipe, places)
    stop = StopSignal(folder.stop)
    return loop.train(folder, Accelerator(cpu=True), lambda kind, **data: None, stop)


def same(one, other, base):
    """Whether two results have the same losses and weights, to rounding.

    Where a gradient is next to 0, rounding decides the sign of Adam's first updates.
    """
    assert one.losses == pytest.approx(other.losses, abs=2e-5)
    first, second, start = (load_file(file) for file in (one.adapter, other.adapter, base))
    assert first.keys() == second.keys()
    apart = sum(float((first[name] - second[name]).pow(2).sum()) for name in first)
    moved = sum(float((first[name] - start.get(name, 0)).pow(2).sum()) for name in first)
    assert moved > 0
    assert apart < 1e-4 * moved


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"schedule": {"gradient_accumulation_steps": 2, "batch_size": 2}, "attempt": 1},
        {"text_encoder": {"last_step": 2}, "attempt": 2},
    ],
    ids=["plain", "accumulated", "text encoder frozen on the way"],
)
def test_recorded_steps_learn_what_plain_ones_learn(places, kind, parts, monkeypatch):
    plain = trained(recipe(kind, **parts), places)
    monkeypatch.setattr(compute, "CudaGraphCapturer", Repeater)
    monkeypatch.setattr(loop, "can_capture_graphs", lambda run, tier: True)
    before = Repeater.recorded
    again = {"attempt": 100 + parts.get("attempt", 0)}
    recorded = trained(recipe(kind, **{**parts, **again}), places)
    assert Repeater.recorded > before
    assert recorded.notes == plain.notes
    same(recorded, plain, places.base)


def beside_a_gpu(monkeypatch):
    """Allows the tier that offloads to the CPU, which is refused where there is no GPU."""
    real = tier_choice.detect_machine
    monkeypatch.setattr(
        tier_choice, "detect_machine", lambda *g: replace(real(*g), cpu_8bit_adam=True)
    )


@pytest.mark.parametrize("memory", ["checkpointing", "in_backward", "offload"])
@pytest.mark.parametrize("clip", [0.3, None])
def test_tiers_learn_what_full_speed_learns(places, memory, clip, monkeypatch):
    beside_a_gpu(monkeypatch)
    eight = {"optimizer": {"name": "adamw8bit", "max_grad_norm": clip}}
    full = trained(recipe(**eight, attempt=3), places)
    lower = trained(recipe(**eight, attempt=3, compute={"memory": memory}), places)
    same(lower, full, places.base)


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
def test_a_bf16_run_on_a_cpu_can_compute_its_activations_again(places, kind):
    full, checkpointed = (
        trained(recipe(kind, compute={"precision": "bf16", "memory": memory}), places)
        for memory in ("full", "checkpointing")
    )
    same(full, checkpointed, places.base)


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
def test_a_text_encoder_in_16_bits_stops_learning_on_the_way(places, kind):
    """Its prompts were encoded without autocast, where fp32 adapters do not go with it."""
    changes = {"compute": {"precision": "bf16"}, "text_encoder": {"last_step": 2}}
    result = trained(recipe(kind, **changes), places)
    exact = trained(recipe(kind, text_encoder={"last_step": 2}), places)
    assert result.losses == pytest.approx(exact.losses, rel=0.05)


def test_8_bits_learn_nearly_the_same(places):
    full = trained(recipe(attempt=4), places)
    lower = trained(recipe(attempt=4, compute={"memory": "8bit"}), places)
    assert lower.losses == pytest.approx(full.losses, abs=0.05)
    assert lower.losses != full.losses


def failing(times, real):
    """`train_loop` that runs out of memory after a step and a checkpoint, `times` times."""
    left = [times]

    def train_loop(run, training, start):
        if left[0]:
            left[0] -= 1
            with torch.no_grad():
                next(iter(training.state.parameters.values())).fill_(7.0)  # half an update
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(run, training, start)

    return train_loop


def test_out_of_memory_starts_again_in_the_next_tier_from_the_first_weights(places, monkeypatch):
    eight = {"optimizer": {"name": "adamw8bit"}, "attempt": 5}
    full = trained(recipe(**eight), places)
    monkeypatch.setattr(loop, "train_loop", failing(2, loop.train_loop))
    fallen = trained(recipe(**{**eight, "attempt": 6}), places)
    tier = json.loads((fallen.folder / "tier.json").read_text())["tier"]
    assert tier == "in_backward"
    notes = [note for note in fallen.notes if "ran out of memory" in note]
    assert [note.split()[2] for note in notes] == ["'full'", "'checkpointing'"]
    same(fallen, full, places.base)


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
def test_nothing_of_an_attempt_that_ran_out_of_memory_is_held(places, kind, monkeypatch):
    """Else the next tier has no more room than the one before."""
    monkeypatch.setattr(compute, "CudaGraphCapturer", Repeater)
    monkeypatch.setattr(loop, "can_capture_graphs", lambda run, tier: True)
    real, release, held, left = loop.train_loop, loop.release_memory, [], []

    def train_loop(run, training, start):
        held.append([weakref.ref(training.base.unet), weakref.ref(training.state.optimizer)])
        held[-1] += [weakref.ref(p) for p in training.state.parameters.values()]
        real(run, training, start)
        if len(held) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run.recipe.schedule.steps

    def released():
        release()
        if len(held) == 1:
            left.append(sum(one() is not None for one in held[0]))

    monkeypatch.setattr(loop, "train_loop", train_loop)
    monkeypatch.setattr(loop, "release_memory", released)
    trained(recipe(kind, attempt=7, schedule={"steps": 3}), places)
    assert len(held) == 2 and left[0] == 0


def test_out_of_memory_in_the_last_tier_comes_out(places, monkeypatch):
    monkeypatch.setattr(loop, "train_loop", failing(9, loop.train_loop))
    with pytest.raises(torch.OutOfMemoryError):
        trained(recipe("lora", attempt=8), places)


def test_a_model_that_does_not_load_for_want_of_memory_changes_no_tier(places, monkeypatch):
    """Another program holds it; 8 bits would not help, and could not go on from the checkpoint."""
    folder = prepare(recipe(attempt=9), places)
    folder.tier_file.write_text('{"version": 1, "tier": "checkpointing"}')

    def load(run):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "load", load)
    with pytest.raises(torch.OutOfMemoryError):
        trained(recipe(attempt=9), places)
    assert json.loads(folder.tier_file.read_text())["tier"] == "checkpointing"


@pytest.mark.parametrize("error", [NotImplementedError("no operator"), ImportError("libcudart")])
def test_xformers_that_does_not_work_here_ends_no_run(error, monkeypatch):
    def fail(dtype, device):
        assert dtype is torch.float16
        raise error

    monkeypatch.setattr(compute, "try_xformers", fail)
    told = []
    run = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cuda")),
        note=told.append,
        precision="fp16",
    )
    compute.enable_xformers(run, SimpleNamespace(unet=None))
    assert len(told) == 1 and "PyTorch's attention" in told[0] and str(error) in told[0]


def test_xformers_was_never_used_on_gpus_without_its_fp32_kernel(monkeypatch):
    """diffusers tries fp32 before it sets the processors."""
    tried = []
    monkeypatch.setattr(compute, "import_error", lambda package: None)
    monkeypatch.setattr(compute, "try_xformers", lambda dtype, device: tried.append(dtype))
    unet, _ = MODELS["tiny"]()
    run = SimpleNamespace(
        accelerator=SimpleNamespace(device=torch.device("cuda")), note=pytest.fail, precision="bf16"
    )
    compute.enable_xformers(run, SimpleNamespace(unet=unet))
    kinds = {type(one).__name__ for one in unet.attn_processors.values()}
    assert kinds == {"XFormersAttnProcessor"} and tried == [torch.bfloat16]


def test_8_bit_adam_without_its_kernels_ends_a_run_before_anything_is_drawn(places, monkeypatch):
    monkeypatch.setattr(loop, "eight_bit_error", lambda device: "RuntimeError('no binary')")
    monkeypatch.setattr(loop, "draw_missing_class_images", lambda *a: pytest.fail("drawn"))
    with pytest.raises(RunFailed, match=r"no binary.*'auto' uses 8-bit"):
        trained(recipe("lora", attempt=10, optimizer={"name": "adamw8bit"}), places)


def test_a_base_that_cannot_be_saved_ends_dreambooth_before_anything_is_drawn(places, monkeypatch):
    real = loop.load_base

    def of_an_lcm(*given, **options):
        base = real(*given, **options)
        known = {k: v for k, v in base.unet.config.items() if not k.startswith("_")}
        return replace(base, unet=UNet2DConditionModel(**{**known, "time_cond_proj_dim": 16}))

    monkeypatch.setattr(loop, "load_base", of_an_lcm)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "draw_missing_class_images", lambda *a: pytest.fail("drawn"))
        with pytest.raises(BaseModelError, match="train a LoRA on this base"):
            trained(recipe(attempt=17), places)
    assert trained(recipe("lora", attempt=17), places).adapter.is_file()


def test_a_whole_model_that_no_tier_can_hold_ends_a_run_before_anything_is_drawn(
    places, monkeypatch
):
    stages = []
    folder = prepare(recipe(), places)

    def emit(kind, **data):
        stages.append(data.get("name", kind))

    monkeypatch.setattr(tier_choice, "free_memory", lambda accelerator: 1)
    gpu = SimpleNamespace(device=torch.device("cuda"), num_processes=1)
    machine = memory_tiers.Machine("fp16", True, 1, bitsandbytes=False, cpu_8bit_adam=False)
    monkeypatch.setattr(tier_choice, "detect_machine", lambda *given: machine)
    checked = loop.check_memory

    def on_a_gpu(run, base):
        checked(SimpleNamespace(recipe=run.recipe, precision="fp16", accelerator=gpu), base)

    monkeypatch.setattr(loop, "check_memory", on_a_gpu)
    with pytest.raises(OutOfMemory, match="train a LoRA"):
        loop.train(folder, Accelerator(cpu=True), emit, StopSignal(folder.stop))
    assert "class images" not in stages and "load" in stages


def test_8_bit_adam_works_here():
    pytest.importorskip("bitsandbytes")
    assert eight_bit_error(torch.device("cpu")) is None


def test_a_tier_named_in_the_recipe_is_not_left(places, monkeypatch):
    monkeypatch.setattr(loop, "train_loop", failing(1, loop.train_loop))
    with pytest.raises(torch.OutOfMemoryError):
        trained(recipe(attempt=11, compute={"memory": "full"}), places)


def test_little_memory_takes_a_lower_tier_and_says_so(places, monkeypatch):
    monkeypatch.setattr(tier_choice, "free_memory", lambda accelerator: 1)
    result = trained(recipe("lora", attempt=12), places)
    assert any("'checkpointing'" in note for note in result.notes)


def test_a_run_goes_on_in_its_tier(places, monkeypatch):
    first = prepare(recipe("lora", attempt=13), places)
    first.tier_file.write_text('{"version": 1, "tier": "checkpointing"}')
    result = trained(recipe("lora", attempt=13), places)
    assert json.loads((result.folder / "tier.json").read_text())["tier"] == "checkpointing"


def test_a_run_goes_on_in_the_tier_of_the_one_that_it_continues(places):
    """Its state may fit no other tier's optimizer."""
    short = recipe("lora", name="short", schedule={"steps": 1})
    prepare(short, places).tier_file.write_text('{"version": 1, "tier": "checkpointing"}')
    digest = trained(short, places).recipe.digest()
    result = trained(short.changed(schedule={"steps": 2}, continues=digest), places)
    assert json.loads((result.folder / "tier.json").read_text())["tier"] == "checkpointing"


def test_only_as_many_checkpoints_stay_as_asked_though_each_step_is_saved(places):
    folder, kept = (
        prepare(recipe("lora", attempt=28, saving={"every": 1}, schedule={"steps": 8}), places),
        [],
    )

    def emit(kind, **data):
        if kind == "checkpoint":
            kept.append(len(saved_steps(folder.checkpoints)))

    loop.train(folder, Accelerator(cpu=True), emit, StopSignal(folder.stop))
    assert len(kept) == 8 and max(kept) <= 2, "the newest, and the one before until it is proven"


def test_a_run_with_a_checkpoint_falls_to_no_other_optimizers_state(places, monkeypatch):
    """In 8 bits it could only begin anew: what was learned is worth more than the tier."""
    whole = recipe(attempt=14, saving={"every": 1}, schedule={"steps": 3})
    folder, said = prepare(whole, places), []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", interrupted(loop.training_step))
        emit = lambda kind, **data: said.append(data.get("text") or "")  # noqa: E731
        with pytest.raises(torch.OutOfMemoryError):
            loop.train(folder, Accelerator(cpu=True), emit, StopSignal(folder.stop))
    assert any("from the start with compute.memory 8bit" in text for text in said)
    assert saved_steps(folder.checkpoints)[-1] == 2
    result = trained(whole, places)
    assert result.steps == 3 and len(result.losses) == 3
    same(result, trained(recipe(attempt=15, schedule={"steps": 3}), places), places.base)


def interrupted(training_step):
    def two(run, training, backward, step, **given):
        if step == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return training_step(run, training, backward, step, **given)

    return two


def test_the_unet_is_compiled_only_where_asked(places, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    trained(recipe("lora", schedule={"steps": 1}), places)
    assert not compiled
    trained(recipe("lora", schedule={"steps": 1}, compute={"compile": True}), places)
    assert len(compiled) == 2  # a layer, to see that it works, and the UNet


def test_a_compiler_that_does_not_work_here_is_told_and_not_used(places, monkeypatch):
    def broken(model):
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch, "compile", broken)
    folder, said = prepare(recipe("lora", attempt=16, compute={"compile": True}), places), []
    emit = lambda kind, **data: said.append(data.get("text") or "")  # noqa: E731
    loop.train(folder, Accelerator(cpu=True), emit, StopSignal(folder.stop))
    assert any("compute.compile does not work here" in t and "C compiler" in t for t in said)


class Uncompilable(torch.nn.Module):
    """As `torch.compile` gives it of a model that it then cannot compile."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def forward(self, *_, **__):
        raise RuntimeError("InductorError: no such kernel")


def test_a_model_that_cannot_be_compiled_ended_the_run_at_its_first_step(places, monkeypatch):
    made = []

    def wrapped(model):
        made.append(model)
        return model if len(made) == 1 else Uncompilable(model)  # first the layer that is tried

    settings = {"validate_every": 2, "subject": {"holdout": 1}}
    plain = trained(recipe("lora", attempt=18, **settings), places)
    monkeypatch.setattr(torch, "compile", wrapped)
    folder = prepare(recipe("lora", attempt=18, compute={"compile": True}, **settings), places)
    said = []
    stop = StopSignal(folder.stop)
    loop.train(
        folder, Accelerator(cpu=True), lambda kind, **d: said.append(d.get("text", "")), stop
    )
    assert any("compute.compile fails on this model" in text and "no such" in text for text in said)
    assert folder.result().losses == plain.losses


def test_validation_and_previews_compiled_the_unet_anew():
    unet = torch.nn.Linear(2, 2)
    compiled = Uncompilable(unet)
    prompts = SimpleNamespace(text_encoder=torch.nn.Linear(1, 1), embeddings=None)
    learner = Learner(compiled, prompts, None, "epsilon", None, torch.device("cpu"), None)
    with learner.eval_mode():
        assert learner.unet is unet and not unet.training
    assert learner.unet is compiled and unet.training


def attention(queries, keys, values):
    """As `xformers.ops.memory_efficient_attention` lays tensors out: sample, place, head, width."""
    swapped = [states.transpose(1, 2) for states in (queries, keys, values)]
    return torch.nn.functional.scaled_dot_product_attention(*swapped).transpose(1, 2)


@pytest.mark.parametrize("fault", [0.0, 1.0])
def test_xformers_with_kernels_for_other_gpus_computed_garbage(fault, monkeypatch):
    def attend(*states):
        return attention(*states) + fault

    ops = SimpleNamespace(memory_efficient_attention=attend)
    monkeypatch.setitem(sys.modules, "xformers", SimpleNamespace(ops=ops))
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    right = nullcontext() if not fault else pytest.raises(AssertionError)
    with right:
        compute.try_xformers(torch.float32, torch.device("cpu"))
