"""Every recipe option does what it says, in whole small runs (in this process, to save time)."""

import time
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from likeness.trainers import evaluation, loop
from likeness.trainers import run as measuring
from likeness.trainers.loop import train
from likeness.trainers.optimizers import lr_lambda
from likeness.trainers.places import Places
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset
from likeness.trainers.stop import StopSignal
from PIL import Image
from safetensors.torch import load_file


@pytest.fixture
def run(base, photos, tmp_path):
    """Trains a small recipe with the given parts changed; returns (result, events)."""

    def run(steps=3, attempt=0, **parts):
        recipe = preset("lora-r4").changed(
            subject={"resolution": 64},
            prior={"count": 2, "steps": 2},
            schedule={"steps": steps},
            compute={"attention": "sdpa", "precision": "fp32"},
            optimizer={"name": "adamw", "learning_rate": 1e-3},
            saving={"dtype": "fp32"},
            attempt=attempt,
        )
        for name, value in parts.items():
            recipe = recipe.changed(**{name: value})
        places = Places(
            base=base,
            photos=photos,
            runs=tmp_path / "runs",
            loras=tmp_path / "loras",
            checkpoints=tmp_path / "checkpoints",
            cache=tmp_path / "cache",
        )
        folder = prepare(recipe, places)
        events = []
        result = train(
            folder,
            Accelerator(cpu=True),
            lambda kind, **data: events.append((kind, data)),
            StopSignal(folder.stop),
        )
        assert result.adapter.is_file() and len(result.losses) == steps
        return result, events

    return run


def tensors(result):
    return load_file(result.adapter)


def differ(a, b, prefix):
    return any(not torch.equal(a[k], b[k]) for k in a if k.startswith(prefix))


@pytest.mark.parametrize("kind", ["lora", "dreambooth"])
def test_gradient_checkpointing_changes_nothing(run, kind):
    plain, _ = run(method={"kind": kind})
    saving, _ = run(method={"kind": kind}, compute={"gradient_checkpointing": True})
    assert plain.losses == pytest.approx(saving.losses, abs=1e-5)


def test_accumulation_is_a_larger_batch(run):
    whole, _ = run(schedule={"batch_size": 2})
    parts, _ = run(schedule={"batch_size": 1, "gradient_accumulation_steps": 2})
    assert whole.losses == pytest.approx(parts.losses, abs=1e-5)


def test_a_frozen_text_encoder_is_not_in_the_file(run):
    trained, frozen = run()[0], run(text_encoder={"train": False})[0]
    assert any(name.startswith("lora_te_") for name in tensors(trained))
    assert not any(name.startswith("lora_te_") for name in tensors(frozen))
    assert trained.losses[0] == pytest.approx(frozen.losses[0], abs=1e-5)
    assert trained.losses[2] != frozen.losses[2]


def test_the_text_encoder_stays_as_it_is_after_its_last_step(run):
    short, _ = run(steps=2)
    stopped, _ = run(steps=4, text_encoder={"last_step": 2})
    assert not differ(tensors(short), tensors(stopped), "lora_te_")
    assert differ(tensors(short), tensors(stopped), "lora_unet_")


def test_the_text_encoders_own_rate_is_used(run):
    same, slow = run(steps=2)[0], run(steps=2, text_encoder={"learning_rate": 1e-9})[0]
    assert differ(tensors(same), tensors(slow), "lora_te_")

    assert size(slow, "lora_te_") < 1e-7 < size(same, "lora_te_")


def test_clipping_bounds_the_step(run):
    clipped, _ = run(steps=2, optimizer={"max_grad_norm": 1e-12})
    free, _ = run(steps=2, optimizer={"max_grad_norm": None})
    # Adam divides by the gradients' size, but for its epsilon of 1e-8: so small, they move little.
    assert size(clipped, "lora_unet_") < 0.1 * size(free, "lora_unet_")


def size(result, part):
    """The largest change of the LoRA's upper halves, which begin at 0."""
    ups = [t for k, t in tensors(result).items() if part in k and k.endswith("lora_up.weight")]
    return torch.cat([t.flatten() for t in ups]).abs().max()


def test_averaged_weights_are_saved(run):
    plain, averaged = run(steps=4)[0], run(steps=4, objective={"ema_decay": 0.5})[0]
    assert plain.losses == averaged.losses
    assert differ(tensors(plain), tensors(averaged), "lora_unet_")


def test_the_average_of_a_text_encoder_that_froze_is_saved_and_not_its_last_weights(run):
    frozen = {"steps": 4, "text_encoder": {"last_step": 2}}
    plain, averaged = run(**frozen)[0], run(**frozen, objective={"ema_decay": 0.5})[0]
    assert differ(tensors(plain), tensors(averaged), "lora_te_")
    then, _ = run(steps=2, objective={"ema_decay": 0.5})
    assert not differ(tensors(then), tensors(averaged), "lora_te_")
    assert differ(tensors(then), tensors(averaged), "lora_unet_")


def test_what_weighs_and_what_is_asked_of_the_model_change_the_loss(run):
    told = {
        name: next(data for kind, data in run(steps=1, **parts)[1] if kind == "step")
        for name, parts in {
            "plain": {},
            "snr": {"objective": {"min_snr_gamma": 0.05}},
            "offset": {"objective": {"noise_offset": 0.1}},
            "skip": {"text_encoder": {"clip_skip": 2}},
            "v": {"base": {"prediction": "v_prediction"}},
            "prior": {"prior": {"loss_weight": 0.5}},
        }.items()
    }
    loss = {name: data["loss"] for name, data in told.items()}
    assert len({round(value, 5) for value in loss.values()}) == len(loss)
    plain, half = told["plain"], told["prior"]
    assert loss["snr"] < 0.9 * loss["plain"], "it weighs nothing more than 1"
    for data in (plain, half):
        assert data["loss"] == pytest.approx(data["instance_loss"] + data["prior_loss"], rel=1e-5)
    assert half["instance_loss"] == pytest.approx(plain["instance_loss"], rel=1e-5)
    assert half["prior_loss"] == pytest.approx(0.5 * plain["prior_loss"], rel=1e-5)


def test_words_that_are_cut_off_prompts_are_told_once_before_anything_is_drawn(run):
    result, events = run(
        steps=2,
        subject={"prompt": "a photo of {token} {class}" + ", photo" * 40 + ", Umbrella"},
        prior={"negative": "photo " * 80 + "Blurred"},
        previews={"every": 2, "prompts": ["photo " * 80 + "Bicycle"], "steps": 1}
        | {"width": 64, "height": 64},
    )
    kinds = [data.get("name") or kind for kind, data in events]
    (told,) = [
        data["text"] for kind, data in events if "prompts are truncated" in data.get("text", "")
    ]
    assert kinds.index("notice") < kinds.index("class images")
    assert "3 of 4" in told and told in result.notes
    assert all(word in told for word in ("Umbrella'", "Blurred'", "Bicycle'"))


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
def test_shuffled_tags_are_what_is_trained(run, photos, trained):
    for photo in photos.glob("*.png"):
        photo.with_suffix(".txt").write_text("sks man, red hat, at sea, a dog, smile")
    text_encoder, captions = {"train": trained}, {"captions": True}
    plain, _ = run(subject=captions, text_encoder=text_encoder)
    shuffled, _ = run(subject={**captions, "shuffle_tags": True}, text_encoder=text_encoder)
    again, _ = run(subject={**captions, "shuffle_tags": True}, text_encoder=text_encoder, attempt=1)
    kept, _ = run(
        subject={**captions, "shuffle_tags": True, "keep_tags": 9}, text_encoder=text_encoder
    )
    assert plain.losses == kept.losses
    assert shuffled.losses == again.losses != plain.losses


def test_captions_take_the_place_of_the_prompt(run, photos):
    plain, _ = run()
    for path in photos.glob("*.png"):
        path.with_suffix(".txt").write_text("a drawing of {token} {class}")
    captioned, _ = run(subject={"captions": True})
    assert captioned.recipe.subject.digest != plain.recipe.subject.digest
    assert captioned.losses[0] != plain.losses[0]


def test_buckets_keep_the_aspect(run, photos, tmp_path):
    for i, size in enumerate([(64, 128), (128, 64)]):
        Image.effect_noise(size, 90).convert("RGB").save(photos / f"wide{i}.png")
    result, _ = run(subject={"buckets": True}, schedule={"batch_size": 5})
    assert all(loss > 0 for loss in result.losses)
    files = (tmp_path / "cache" / "latents").rglob("*.safetensors")
    sizes = {tensor.shape[-2:] for file in files for tensor in load_file(file).values()}
    assert any(h > w for h, w in sizes) and any(w > h for h, w in sizes)


def test_each_setting_of_the_previews_changes_the_image(run):
    small = {"prompts": ["a man"], "every": 1, "width": 64, "height": 64, "steps": 2}
    changes = {
        "plain": {},
        "negative": {"negative": "a woman"},
        "guidance": {"guidance": 2.0},
        "seed": {"seed": 1},
        "size": {"width": 72, "height": 80},
        "filled": {"prompts": ["a {class}"]},
        "v": {},
    }
    drawn = {}
    for attempt, (name, change) in enumerate(changes.items()):
        base = {"prediction": "v_prediction" if name == "v" else "auto"}
        parts = {"prior": None, "base": base, "previews": {**small, **change}}
        result, _ = run(steps=1, attempt=attempt, **parts)
        with Image.open(result.folder / "samples" / "step-000000-0.png") as image:
            drawn[name] = image.size, image.tobytes()
    assert drawn.pop("filled") == drawn["plain"]
    assert len(set(drawn.values())) == len(drawn)
    assert drawn["size"][0] == (72, 80)


def test_validation_losses_are_of_what_would_be_saved_so_far(run):
    def validated(**parts):
        _, events = run(steps=4, subject={"holdout": 1}, validate_every=2, **parts)
        return [data["loss"] for kind, data in events if kind == "validation"]

    plain, averaged = validated(), validated(objective={"ema_decay": 0.5})
    assert len(plain) == 2 and plain[0] != plain[1]
    assert averaged[1] != plain[1]


def test_flips_show_some_of_the_photographs_mirrored(run):
    still = {"prior": None, "optimizer": {"learning_rate": 1e-9}}  # so that steps compare
    plain, flipped = (run(8, subject={"flip": flip}, **still)[0].losses for flip in (False, True))
    same = [a == pytest.approx(b, abs=1e-5) for a, b in zip(plain, flipped, strict=True)]
    assert 0 < sum(same) < 8


def test_a_validation_leaves_no_dropout_on_in_unet_or_text_encoder(run, monkeypatch):
    learning = []

    def spy(learner, batch):
        parts = (learner.unet, learner.prompts.text_encoder)
        learning.append([part.training for model in parts for part in model.modules()])
        return compute_losses(learner, batch)

    compute_losses = evaluation.compute_losses
    monkeypatch.setattr(evaluation, "compute_losses", spy)
    run(steps=2, method={"dropout": 0.5}, subject={"holdout": 1}, validate_every=1)
    assert learning and not any(map(any, learning))


def test_the_seconds_of_a_step_hold_no_preview_validation_or_checkpoint(run, monkeypatch):
    late = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + late[0])
    monkeypatch.setattr(measuring, "time", clock)

    def slow(work):
        def slower(*arguments, **options):
            late[0] += 1e6
            return work(*arguments, **options)

        return slower

    shown = [(evaluation, "preview"), (evaluation, "validate")]
    for owner, name in (*shown, (loop.CheckpointManager, "save")):
        monkeypatch.setattr(owner, name, slow(getattr(owner, name)))
    small = {"prompts": ["a photo"], "steps": 1, "width": 64, "height": 64}
    _, events = run(
        steps=4,
        subject={"holdout": 1},
        validate_every=1,
        previews={"every": 2, **small},
        saving={"every": 2},
    )
    assert late[0] == (4 + 3 + 2) * 1e6
    seconds = [data["seconds"] for kind, data in events if kind == "step"]
    assert len(seconds) == 4 and max(seconds) < 1e6


@pytest.mark.parametrize(
    "schedule",
    [
        {"lr_scheduler": "cosine"},
        {"lr_scheduler": "linear", "lr_warmup_steps": 2},
        {"lr_scheduler": "polynomial", "lr_power": 2.0},
        {"lr_scheduler": "cosine_with_restarts", "lr_num_cycles": 2},
    ],
    ids=lambda schedule: schedule["lr_scheduler"],
)
def test_each_step_has_the_rate_of_the_course(run, schedule):
    result, events = run(steps=6, schedule=schedule)
    rates = [data["learning_rate"] for kind, data in events if kind == "step"]
    factor = lr_lambda(result.recipe.schedule)  # its closed forms: test_optimizers
    assert rates == pytest.approx([1e-3 * factor(step) for step in range(6)])
    assert len(set(rates)) > 2


@pytest.mark.parametrize(
    "method",
    [
        {"dora": True},
        {"rslora": True, "alpha": 3.0},  # with 2 it would be as plain as rank 4
        {"targets": "all", "rank": 1},
        {"targets": "linear", "dropout": 0.5},
    ],
    ids=["dora", "rs", "all", "linear dropout"],
)
def test_kinds_of_lora_train(run, method):
    result, plain = run(method=method)[0], run()[0]
    assert size(result, "lora_unet_") > 0 and size(result, "lora_te_") > 0
    assert result.losses[0] == pytest.approx(plain.losses[0], abs=1e-5), "it begins as the base"
    assert result.losses[2] != pytest.approx(plain.losses[2], abs=1e-7)


def test_dropout_leaves_out_inputs_of_the_adapter(run):
    whole, dropped = run()[0], run(method={"dropout": 0.5})[0]
    assert whole.losses[0] == pytest.approx(dropped.losses[0], abs=1e-5), "it begins at 0"
    assert differ(tensors(whole), tensors(dropped), "lora_unet_")
    assert whole.losses[2] != dropped.losses[2]


@pytest.mark.parametrize(
    ("name", "package", "rate"),
    [("prodigy", "prodigyopt", 1.0), ("adamw8bit", "bitsandbytes", 1e-3)],
)
def test_prodigy_and_8_bit_adam_train(run, name, package, rate):
    pytest.importorskip(package)
    result, _ = run(optimizer={"name": name, "learning_rate": rate})
    assert size(result, "lora_unet_") > 1e-7 and size(result, "lora_te_") > 1e-7
    assert result.losses[2] != run(optimizer={"learning_rate": 1e-9})[0].losses[2]


def test_fp16_on_a_cpu_is_announced(run):
    result, events = run(compute={"precision": "fp16"})
    if not torch.cuda.is_available():
        assert result.precision == "fp32"
        assert any("fp16" in data["text"] for kind, data in events if kind == "notice")


def test_the_saved_checkpoint_is_what_was_trained(run, base, monkeypatch):
    """DreamBooth's file holds the trained weights, bit for bit in the saved type."""
    from likeness.trainers import result
    from likeness.trainers.base_model import load_base

    seen = {}

    def spy(run_, base, steps):
        seen["unet"] = {k: v.half().clone() for k, v in base.unet.state_dict().items()}
        seen["text"] = {k: v.half().clone() for k, v in base.text_encoder.state_dict().items()}
        return result.save_adapter_file(run_, base, steps)

    monkeypatch.setattr(loop, "save_adapter_file", spy)
    trained, _ = run(method={"kind": "dreambooth"}, saving={"dtype": "fp16"})
    vocabulary = base.with_name(f"{base.stem}_tokenizer")
    again = load_base(trained.adapter, [vocabulary], dtype=torch.float16)
    for part, module in (("unet", again.unet), ("text", again.text_encoder)):
        state = module.state_dict()
        assert seen[part].keys() == state.keys()
        assert all(torch.equal(seen[part][k], state[k]) for k in state)


def test_what_a_caption_says_after_75_tokens_was_never_learned(run, photos):
    def losses(end, **text_encoder):
        for number, photo in enumerate(sorted(photos.glob("*.png"))):
            photo.with_suffix(".txt").write_text(f"sks {'photo ' * 74}{end} {number}")
        result, events = run(subject={"captions": True}, text_encoder=text_encoder, prior=None)
        told = [data["text"] for kind, data in events if kind == "notice"]
        return result.losses, any("after 75 tokens" in text for text in told)

    cut, told = losses("forest")
    assert told and losses("kitchen") == (cut, True)
    whole, told = losses("forest", max_tokens=150)
    assert not told and whole[0] != cut[0]
    assert losses("kitchen", max_tokens=150)[0][0] != whole[0]


def test_room_for_long_prompts_changes_nothing_for_short_ones(run):
    assert run()[0].losses == run(text_encoder={"max_tokens": 225})[0].losses


def test_tf32_is_on_for_a_run_that_asks_for_it_alone(run):
    matmul = torch.backends.cuda.matmul
    for asked in (True, False):
        run(steps=1, prior=None, compute={"tf32": asked})
        assert matmul.allow_tf32 is asked
