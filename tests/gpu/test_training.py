"""Training on a GPU: the same as on the CPU, captured or not, without waiting, in any tier."""

import json

import pytest
import torch
from likeness.demo.random_model import write_random_model
from likeness.trainers import cuda_graphs, loop
from likeness.trainers.cuda_graphs import CudaGraphCapturer
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset
from likeness.trainers.stop import StopSignal
from PIL import Image
from safetensors.torch import load_file

STAND_IN = torch.cuda.is_available() and torch.cuda.get_device_name() == "stand-in"


def recipe(kind, **parts):
    small = preset("lora-r4").changed(
        method={"kind": kind},
        subject={"resolution": 64},
        schedule={"steps": 8},
        optimizer={"name": "adamw", "learning_rate": 1e-3},
        compute={"attention": "sdpa"},
    )
    return small.changed(**parts)


@pytest.fixture
def trained(places, accelerator):
    """Trains a recipe from step 0, with ready-made class images."""
    ready = places.model_copy(update={"class_images": places.photos})

    def train(recipe, device="cuda", places=ready):
        number = len(list(places.runs.parent.glob("trained-*")))
        place = places.runs.parent / f"trained-{number}"
        own = {name: place / name for name in ("runs", "cache", "loras", "checkpoints")}
        folder, steps = prepare(recipe, places.model_copy(update=own)), []

        def emit(kind, **data):
            steps.extend([data["step"]] if kind == "step" else [])

        result = loop.train(folder, accelerator(device), emit, StopSignal(folder.stop))
        assert steps == list(range(1, recipe.schedule.steps + 1))
        return result

    return train


# Of losses. Real GPUs round in other ways.
TOLERANCE = 1e-3 if STAND_IN else 0.02


OPTIONS = {
    "lora": {},
    "dreambooth": {"kind": "dreambooth"},
    "frozen text encoder": {"text_encoder": {"train": False}},
    "text encoder frozen on the way": {"text_encoder": {"last_step": 4}},
    "long prompts": {"text_encoder": {"max_tokens": 150}, "subject": {"prompt": "a man " * 60}},
    "checkpointing": {"compute": {"memory": "checkpointing"}},
    "accumulation": {"schedule": {"batch_size": 2, "gradient_accumulation_steps": 2}},
    "teacher": {"prior": {"source": "teacher"}},
    "teacher of dreambooth": {"kind": "dreambooth", "prior": {"source": "teacher"}},
    "no prior": {"prior": None},
    "average": {"objective": {"ema_decay": 0.9}},
    "objective": {"objective": {"min_snr_gamma": 5, "noise_offset": 0.1, "caption_dropout": 0.5}},
    "dora": {"method": {"dora": True}},
    "prodigy": {"optimizer": {"name": "prodigy", "learning_rate": 1}},
    "evaluations": {
        "subject": {"holdout": 1},
        "validate_every": 3,
        "saving": {"every": 2, "adapters_every": 3},
        "previews": {"every": 4, "prompts": ["a cat"], "steps": 2, "width": 64, "height": 64},
    },
}


@pytest.mark.parametrize("parts", OPTIONS.values(), ids=OPTIONS)
def test_a_gpu_learns_what_a_cpu_learns(parts, trained):
    changes = {"kind": "lora", **parts}
    whole = recipe(**changes).changed(compute={"precision": "fp32"})
    gpu, cpu = trained(whole), trained(whole, "cpu")
    assert gpu.losses == pytest.approx(cpu.losses, rel=TOLERANCE)
    same_weights(gpu, cpu)


def same_weights(one, other):
    """Whether two results moved the weights alike, as far as rounding lets Adam."""
    first, second = (load_file(result.adapter) for result in (one, other))
    assert first.keys() == second.keys()
    largest = max(float((first[name] - second[name]).abs().max()) for name in first)
    assert largest < 8 * one.recipe.optimizer.learning_rate  # of eight steps in other directions
    apart = sum(float((first[name].float() - second[name].float()).abs().mean()) for name in first)
    assert apart / len(first) < 1e-4


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("memory", ["full", "checkpointing"])
def test_captured_steps_learn_what_eager_ones_learn(kind, precision, memory, trained, monkeypatch):
    graphed = []
    real = CudaGraphCapturer.capture

    def capture(self, work, *, save_memory=False):
        graphed.append(True)  # not the graph: those that are forgotten are gone
        return real(self, work, save_memory=save_memory)

    monkeypatch.setattr(CudaGraphCapturer, "capture", capture)
    compute = {"precision": precision, "memory": memory}
    text = {"last_step": 4}
    eager = trained(recipe(kind, compute={**compute, "graphs": False}, text_encoder=text))
    assert not graphed
    result = trained(recipe(kind, compute=compute, text_encoder=text))
    assert len(graphed) == 2 and result.notes == eager.notes  # with the text encoder, and without
    assert result.losses == pytest.approx(eager.losses, rel=TOLERANCE)


@pytest.mark.parametrize(
    ("precision", "optimizer"),  # in fp16, GradScaler waits for any that is not fused
    [*((one, "adamw") for one in ("fp32", "bf16", "fp16")), ("bf16", "adamw8bit")],
)
def test_a_step_does_not_wait_for_the_gpu(precision, optimizer, trained, monkeypatch):
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    real = loop.training_step

    def training_step(*given, graphed):
        step = given[3]
        torch.cuda.set_sync_debug_mode("error" if step >= 3 else "default")  # captured at 1
        try:
            return real(*given, graphed=graphed)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop, "training_step", training_step)
    changes = {"compute": {"precision": precision}, "optimizer": {"name": optimizer}}
    trained(recipe("lora", **changes, attempt=1))


def test_weights_that_move_are_captured_again(trained, monkeypatch):
    """As with optimizers that replace the weights' memory."""
    real, captures = loop.training_step, []
    capture = cuda_graphs.GraphedCallable._capture

    def counted(*given):
        captures.append(True)
        return capture(*given)

    def training_step(run, training, backward, step, **options):
        if step == 4:
            for parameter in training.state.parameters.values():
                parameter.data = parameter.data.clone()
        return real(run, training, backward, step, **options)

    still = trained(recipe("lora", attempt=2))
    monkeypatch.setattr(loop, "training_step", training_step)
    monkeypatch.setattr(cuda_graphs.GraphedCallable, "_capture", counted)
    moved = trained(recipe("lora", attempt=3))
    assert len(captures) == 2
    assert moved.losses == pytest.approx(still.losses, rel=TOLERANCE)


LOWEST = {
    "in_backward": ("in_backward", {}),
    "offload": ("offload", {}),
    "not clipped": ("offload", {"optimizer": {"max_grad_norm": None}}),
    "average": ("offload", {"objective": {"ema_decay": 0.9}}),
    "text encoder frozen on the way": ("offload", OPTIONS["text encoder frozen on the way"]),
    "teacher": ("offload", OPTIONS["teacher"]),
    "evaluations": ("offload", OPTIONS["evaluations"]),
}


@pytest.mark.parametrize(("memory", "parts"), LOWEST.values(), ids=LOWEST)
def test_the_lowest_tiers_learn_what_full_speed_learns(memory, parts, trained):
    pytest.importorskip("bitsandbytes")
    eight = recipe("dreambooth", optimizer={"name": "adamw8bit"}).changed(**parts)
    full, lower = (
        trained(eight.changed(compute={"precision": "fp32", "memory": name}))
        for name in ("full", memory)
    )
    assert lower.losses == pytest.approx(full.losses, rel=TOLERANCE)
    same_weights(lower, full)


def test_a_text_encoder_on_the_cpu_learns(trained):
    pytest.importorskip("bitsandbytes")
    eight = recipe("dreambooth", optimizer={"name": "adamw8bit"}, compute={"memory": "offload"})
    learned = load_file(trained(eight).adapter)
    frozen = load_file(trained(eight.changed(optimizer={"learning_rate": 1e-9})).adapter)
    text = [name for name in learned if name.startswith("cond_stage_model.") and "weight" in name]
    assert all((learned[name] - frozen[name]).abs().max() > 1e-4 for name in text)


@pytest.mark.parametrize(
    ("kind", "optimizer", "full_in", "tier"),
    [
        ("lora", "adamw", ["full"], "checkpointing"),
        ("dreambooth", "adamw", ["full"], "checkpointing"),
        ("dreambooth", "adamw8bit", ["full", "checkpointing", "in_backward"], "offload"),
    ],
)
def test_a_full_gpu_takes_the_next_tier_and_keeps_nothing(
    kind, optimizer, full_in, tier, trained, limited_memory, monkeypatch
):
    if optimizer == "adamw8bit":
        pytest.importorskip("bitsandbytes")
    step, load, at_start = loop.training_step, loop.load, []

    def training_step(run, *given, **options):
        if run.tier.name in full_in:
            limited_memory(1 << 16)
        return step(run, *given, **options)

    def loaded(run):
        at_start.append(torch.cuda.memory_allocated())
        limited_memory(1 << 40)
        return load(run)

    short = recipe(kind, optimizer={"name": optimizer}, schedule={"steps": 2})
    plain = trained(short)
    monkeypatch.setattr(loop, "training_step", training_step)
    monkeypatch.setattr(loop, "load", loaded)
    result = trained(short)
    assert json.loads((result.folder / "tier.json").read_text())["tier"] == tier
    fallen = [note.split("'")[1] for note in result.notes if "ran out of memory" in note]
    assert fallen == full_in
    assert max(at_start) <= at_start[0]
    assert result.losses == pytest.approx(plain.losses, rel=0.02)  # in_backward: bf16


@pytest.mark.timeout(900)
@pytest.mark.skipif(STAND_IN, reason="takes hours on the stand-in, see docs/performance.md")
@pytest.mark.parametrize(("memory", "limit"), [("in_backward", 8e9), ("offload", 7.5e9)])
def test_dreambooth_at_512_pixels_fits_in_8_gb_in_the_lowest_tiers(
    memory, limit, places, trained, limited_memory, tmp_path
):
    pytest.importorskip("bitsandbytes")
    if torch.cuda.get_device_properties(0).total_memory < limit:
        pytest.skip("the GPU has less")
    photos = tmp_path / "large"
    photos.mkdir()
    for number in range(2):
        Image.effect_noise((512, 512), 50 + number).convert("RGB").save(photos / f"{number}.png")
    tokenizer = places.base.with_name(f"{places.base.stem}_tokenizer")
    base = write_random_model(tmp_path / "full.safetensors", size="full", tokenizer=tokenizer)
    whole = preset("standard").changed(
        schedule={"steps": 3},
        prior={"count": 2},
        compute={"memory": memory, "attention": "sdpa"},
        previews={"every": 3, "prompts": ["a cat"], "steps": 2},
    )
    limited_memory(limit)
    result = trained(whole, places=places.model_copy(update={"base": base, "photos": photos}))
    assert result.steps == 3 and result.peak_memory < limit
