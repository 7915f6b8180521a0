"""Training from the terminal, in real processes."""

import hashlib
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from likeness.trainers import job
from likeness.trainers.adapter import read_metadata
from likeness.trainers.errors import RunBusy, RunCancelled
from likeness.trainers.events import EventReader
from likeness.trainers.job import Job, train
from likeness.trainers.places import Places
from likeness.trainers.preparation import prepare
from likeness.trainers.presets import preset
from likeness.trainers.run_folder import RunFolder
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
MODELS = runpy.run_path(str(ROOT / "tests" / "models.py"))


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def only(pattern, folder):
    (path,) = sorted(folder.glob(pattern))
    return path


def test_a_lora_is_trained_inspected_and_drawn_with(train, likeness, base, tmp_path):
    printed = train().stdout
    adapter = only("output/loras/*.safetensors", tmp_path)
    assert str(adapter.relative_to(tmp_path)) in printed
    stored = adapter.read_bytes()
    for private in (tmp_path, Path.home(), base.name, "0.png"):
        assert str(private).encode() not in stored
    told = likeness("inspect", adapter).stdout
    recipe = json.loads(likeness("inspect", adapter, "--json").stdout)
    assert recipe["method"]["rank"] == 4 and '"rank": 4' in told
    image = likeness(
        *("draw", "a photo of sks man", "--base", base, "--adapter", adapter),
        *("--width", 64, "--height", 64, "--steps", 2),
    ).stdout.strip()
    assert (tmp_path / image).is_file()


def test_a_training_called_anna_in_cyrillic_was_refused(train, likeness, tmp_path):
    settings = ("name=Анна", "schedule.steps=1", "prior=null")
    printed = train(settings=settings).stdout
    adapter = only("output/loras/*.safetensors", tmp_path)
    assert adapter.name.startswith("Анна-lora-r4-") and adapter.name in printed
    run = only("output/likeness/runs/*", tmp_path)
    assert RunFolder(run).result().adapter == adapter
    kinds = [event.kind for event in EventReader(RunFolder(run).events).read_block()]
    assert kinds[-1] == "finished"
    assert read_metadata(adapter).recipe.name == "Анна"
    assert json.loads(likeness("inspect", adapter, "--json").stdout)["name"] == "Анна"
    names = likeness("export", run).stdout
    assert f"- {adapter.name}" in names
    assert (tmp_path / "exports" / f"{adapter.stem}.zip").is_file()


def test_own_class_images_and_a_tokenizer_from_elsewhere_are_used_and_known_again(
    likeness, base, photos, tmp_path
):
    alone, words = tmp_path / "alone.safetensors", tmp_path / "words"
    shutil.copy(base, alone)
    shutil.copytree(base.with_name(f"{base.stem}_tokenizer"), words)
    own = shutil.copytree(photos, tmp_path / "own")
    settings = ["subject.resolution=64", "schedule.steps=2", "optimizer.name=adamw"]
    settings += ["compute.attention=sdpa", "compute.precision=fp32"]
    given = ["train", "lora-r4", "--base", alone, "--photos", photos, "--class-images", own]
    given += ["--device", "cpu", *(flag for one in settings for flag in ("--set", one))]
    refused = likeness(*given, check=False)
    assert refused.returncode == 1 and "tokenizer" in refused.stderr
    told = likeness(*given, "--tokenizer", words)
    assert "class images" not in told.stderr, "none are drawn"
    run = next(path for path in (tmp_path / "output" / "likeness" / "runs").iterdir())
    places = RunFolder(run).places()
    assert (places.class_images, places.tokenizers) == (own, (words,))
    assert RunFolder(run).recipe().prior.images
    again = likeness("train", run, "--device", "cpu").stdout
    assert "nothing was trained" in again and str(RunFolder(run).result().adapter) in again


def test_draw_tells_which_words_of_a_prompt_are_cut(likeness, base):
    small = ("--width", 64, "--height", 64, "--steps", 1)
    told = likeness("draw", "photo " * 300 + "Umbrella", "--base", base, *small).stderr
    assert told.count("'Umbrella' of ") == 1


def test_equal_recipes_give_equal_bytes_and_a_finished_run_is_reused(
    train, likeness, base, tmp_path
):
    train()
    first = only("output/loras/*.safetensors", tmp_path)
    before = digest(first)
    assert "nothing was trained" in train().stdout
    train("--output", "again")
    second = only("again/loras/*.safetensors", tmp_path)
    assert digest(second) == before
    assert second.name == first.name


def test_a_photograph_that_is_dropped_is_told_and_another_name_gives_the_file_that_is_there(
    train, photos, tmp_path
):
    (photos / "torn.png").write_bytes(b"\x89PNG")
    told = train().stderr
    assert "Photographs: 3 used, 1 not used:\n- torn.png: " in told
    adapter = only("output/loras/*.safetensors", tmp_path)
    again = train(settings=["name=anna"])
    assert "nothing was trained" in again.stdout and str(adapter.name) in again.stdout
    assert "Already trained as 'photos'" in again.stderr
    assert only("output/loras/*", tmp_path) == adapter


def test_training_again_from_an_adapter_gives_the_same_digest(
    likeness, train, base, photos, tmp_path
):
    train()
    adapter = only("output/loras/*.safetensors", tmp_path)
    likeness(
        *("train", adapter, "--base", base, "--photos", photos, "--output", "again"),
        *("--device", "cpu"),
    )
    again = only("again/loras/*.safetensors", tmp_path)
    assert again.name == adapter.name and digest(again) == digest(adapter)


def test_what_is_learned_on_the_way_is_saved_as_files_of_their_own(base, photos, tmp_path):
    """The file after four steps is that of a training of four."""
    where = places(tmp_path, base, photos)
    recipe = small().changed(schedule={"steps": 6}, saving={"adapters_every": 2})
    events = []
    result = train(recipe, where, device="cpu", on_event=events.append)
    run = result.adapter.stem
    names = [f"{run}-step000002.safetensors", f"{run}-step000004.safetensors"]
    assert [Path(e.data["path"]).name for e in events if e.kind == "adapter"] == names
    assert sorted(p.name for p in where.loras.iterdir()) == [*names, f"{run}.safetensors"]
    shorter = train(small().changed(schedule={"steps": 4}), where, device="cpu",
                    on_event=lambda event: None)  # fmt: skip
    saved, whole = load_file(where.loras / names[1]), load_file(shorter.adapter)
    assert saved.keys() == whole.keys()
    assert all(torch.equal(saved[key], whole[key]) for key in saved)
    assert read_metadata(where.loras / names[1]).steps == 4


@pytest.mark.parametrize(
    "settings",
    [
        ["optimizer.name=adamw"],
        ["optimizer.name=adamw8bit", "objective.ema_decay=0.9"],
        ['method={"kind": "dreambooth"}', "optimizer.learning_rate=1e-5"],
        ["method.dropout=0.3", "subject.flip=true", "text_encoder.last_step=20"],
        ["method.rank=6", "objective.ema_decay=0.9"],
        ['subject={"captions": true, "shuffle_tags": true}', "text_encoder.train=false"],
    ],
    ids=["lora", "lora 8-bit ema", "dreambooth", "dropout flip", "from a file", "tags"],
)
def test_a_run_killed_and_resumed_is_the_unbroken_run(base, photos, tmp_path, settings, request):
    if any("8bit" in s for s in settings):
        pytest.importorskip("bitsandbytes")
    recipe = small(settings).changed(schedule={"steps": 40}, saving={"every": 10})
    start = None
    if "tags" in request.node.name:
        for photo in photos.glob("*.png"):
            photo.with_suffix(".txt").write_text("sks man, red hat, at sea, a dog, smile")
    if "from a file" in request.node.name:
        start = MODELS["write_random_lora"](base, tmp_path / "start.safetensors")
    whole, broken = (places(tmp_path / name, base, photos, start) for name in "ab")
    unbroken = train(recipe, whole, on_event=lambda e: None, device="cpu")
    folder = prepare(recipe, broken)
    killed = Job(folder, device="cpu")
    reader = EventReader(folder.events)
    deadline = time.monotonic() + 400
    # Steps are told ten at a time: it is seen at 20 at the latest.
    while not any(e.kind == "step" and e.data["step"] >= 11 for e in reader.new_events()):
        assert killed.exit_code() is None and time.monotonic() < deadline, folder.log.read_text()
        time.sleep(0.01)
    killed._process.send_signal(signal.SIGKILL)
    killed._process.wait()
    notices = []
    resumed = train(
        recipe,
        broken,
        device="cpu",
        on_event=lambda e: notices.append(e.data["text"]) if e.kind == "notice" else None,
    )
    assert any("Resuming from step" in text for text in notices)
    assert resumed.losses == unbroken.losses
    assert digest(resumed.adapter) == digest(unbroken.adapter)


def small(settings=()):
    from likeness.trainers.arguments import apply_overrides

    recipe = preset("lora-r4").changed(
        subject={"resolution": 64},
        prior={"count": 2, "steps": 2},
        compute={"attention": "sdpa", "precision": "fp32"},
        optimizer={"name": "adamw"},
        schedule={"steps": 4},
    )
    return apply_overrides(recipe, list(settings))


def places(output, base, photos, start=None):
    return Places(
        base=base,
        photos=photos,
        runs=output / "runs",
        loras=output / "loras",
        checkpoints=output / "checkpoints",
        cache=output / "cache",
        start=start,
    )


def test_class_images_that_a_run_never_shows_are_not_drawn_and_change_nothing(
    base, photos, tmp_path
):
    """Losses and file are those of a run that finds the whole set; so are those of more steps."""
    recipe = small().changed(prior={"count": 8})
    lazy, full = (places(tmp_path / name, base, photos) for name in ("lazy", "full"))

    def drawn(where):
        return len(list((where.cache / "class_images").rglob("*.png")))

    def learned(recipe, where):
        result = train(recipe, where, device="cpu", on_event=lambda event: None)
        return result.losses, digest(result.adapter)

    learned(recipe.changed(schedule={"steps": 8}, name="whole"), full)
    for one in (recipe, recipe.changed(attempt=1)):
        assert learned(one, lazy) == learned(one, full)
        assert (drawn(lazy), drawn(full)) == (4, 8)
    first = prepare(recipe, lazy).recipe().digest()
    more = recipe.changed(schedule={"steps": 6}, continues=first)
    assert learned(more, lazy) == learned(more, full) and drawn(lazy) == 6


def test_more_steps_go_on_from_a_finished_run(likeness, train, tmp_path):
    train("--output", "whole", settings=["schedule.steps=8"])
    train()
    run = only("output/likeness/runs/*", tmp_path)
    told = likeness("train", run, "--more", 4, "--device", "cpu")
    assert "Resuming from step 4" in told.stderr
    (longer,) = (
        p
        for p in tmp_path.glob("output/likeness/runs/*/result.json")
        if json.loads(p.read_text())["steps"] == 8
    )
    whole = only("whole/likeness/runs/*/result.json", tmp_path)
    assert json.loads(longer.read_text())["losses"] == json.loads(whole.read_text())["losses"]


@pytest.mark.parametrize(
    "settings",
    [
        ["prior.count=8"],  # of which the shorter run uses three
        ['method={"kind": "dreambooth"}', "optimizer.learning_rate=1e-5", "prior.source=teacher"],
        [
            "schedule.lr_scheduler=constant_with_warmup",
            "schedule.lr_warmup_steps=2",
            "text_encoder.last_step=2",
            "objective.ema_decay=0.9",
            "prior=null",
        ],
    ],
    ids=["lora", "dreambooth", "warm-up ema"],
)
def test_raised_steps_train_only_those_that_are_new_and_learn_the_same(
    base, photos, tmp_path, settings
):
    recipe = small(settings).changed(schedule={"steps": 3})
    longer = recipe.changed(schedule={"steps": 6}, name="longer")
    whole = places(tmp_path / "whole", base, photos)
    unbroken = train(longer, whole, device="cpu", on_event=lambda event: None)
    where, told = places(tmp_path / "parts", base, photos), []
    first = train(recipe, where, device="cpu", on_event=lambda event: None)
    resumed = train(longer, where, device="cpu", on_event=told.append)
    steps = [event.data["step"] for event in told if event.kind == "step"]
    assert steps[0] == 4 and resumed.losses == unbroken.losses
    assert digest(resumed.adapter) == digest(unbroken.adapter)
    texts = [event.data["text"] for event in told if event.kind == "notice"]
    assert f"Resuming from step 3 of the run {first.folder.name}." in texts
    again = train(recipe, where, device="cpu", on_event=lambda event: None)
    assert again.reused and again.adapter == first.adapter


def test_a_continuing_run_that_was_stopped_goes_on_without_the_earlier_ones_folder(
    base, photos, tmp_path
):
    where = places(tmp_path, base, photos)
    first = train(small(), where, device="cpu", on_event=lambda event: None)
    longer = small().changed(continues=first.recipe.digest(), schedule={"steps": 400})
    folder = RunFolder(where.runs / prepare(longer, where).path.name)

    def stop(event):
        if event.kind == "step":
            folder.stop.touch()

    stopped = train(longer, where, device="cpu", on_event=stop)
    assert stopped.stopped and 4 < stopped.steps < 400
    shutil.rmtree(first.folder)
    again = []
    train(longer, where, device="cpu", on_event=lambda e: (stop(e), again.append(e)))
    steps = [event.data["step"] for event in again if event.kind == "step"]
    assert steps[0] == stopped.steps + 1


def test_stop_and_save_leaves_an_adapter_and_the_run_goes_on_when_queued_again(
    base, photos, tmp_path
):
    # Also with a state that is kept while there are steps left only.
    recipe = small().changed(schedule={"steps": 400}, saving={"keep": 0})
    where = places(tmp_path, base, photos)
    folder = RunFolder(where.runs / prepare(recipe, where).path.name)

    def stop_at_five(event):
        if event.kind == "step" and event.data["step"] >= 5:
            folder.stop.touch()

    result = train(recipe, where, on_event=stop_at_five, device="cpu")
    assert result.stopped and 5 <= result.steps < 400
    assert result.adapter.is_file()
    kept = train(recipe, where, device="cpu", on_event=stop_at_five, reuse_stopped=True)
    assert kept.reused and kept.stopped and kept.steps == result.steps
    starts = []
    again = train(
        recipe,
        where,
        device="cpu",
        on_event=lambda e: (stop_at_twenty(e, folder, result.steps), starts.append(e)),
    )
    first = next(e.data["step"] for e in starts if e.kind == "step")
    assert first == result.steps + 1
    assert again.losses[: result.steps] == result.losses
    assert again.adapter != result.adapter


def stop_at_twenty(event, folder, before):
    if event.kind == "step" and event.data["step"] >= before + 5:
        folder.stop.touch()


def test_a_cancelled_run_goes_on_where_it_was(base, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "GRACE_SECONDS", 60)  # however slow the machine is
    recipe, where = small().changed(schedule={"steps": 20_000}), places(tmp_path, base, photos)
    steps, enough = [], [3]

    def note(event):
        if event.kind == "step":
            steps.append(event.data["step"])

    def cancel():
        with pytest.raises(RunCancelled):
            train(recipe, where, device="cpu", on_event=note,
                  interrupted=lambda: len(steps) > enough[0])  # fmt: skip

    cancel()
    done, first = steps[-1], len(steps)
    enough[0] = first + 3
    cancel()
    # The state after the step that was cancelled is saved, though no checkpoints were asked for.
    assert steps[first] > done
    done, first = steps[-1], len(steps)
    enough[0] = first + 1
    recipe = recipe.changed(previews={"prompts": ["a cat"], "every": 30_000, "steps": 1})
    cancel()
    assert steps[first] > done, "previews that were asked for later began it anew"


def test_cancel_raises_and_leaves_no_process(base, photos, tmp_path):
    import psutil

    class Interrupted(Exception):
        pass

    recipe = small().changed(schedule={"steps": 10_000})
    steps = []
    others = {child.pid for child in psutil.Process().children(recursive=True)}

    def interrupted():
        if len(steps) > 3:
            raise Interrupted
        return False

    with pytest.raises(Interrupted):
        train(
            recipe,
            places(tmp_path, base, photos),
            device="cpu",
            interrupted=interrupted,
            on_event=lambda e: steps.append(e) if e.kind == "step" else None,
        )
    left = [c for c in psutil.Process().children(recursive=True) if c.pid not in others]
    assert not [child for child in left if job._is_alive(child)]
    assert not list(tmp_path.glob("loras/*"))


def test_a_run_ends_at_a_checkpoint_when_its_parent_dies(base, photos, tmp_path):
    recipe = small().changed(schedule={"steps": 100_000})
    folder = prepare(recipe, places(tmp_path, base, photos))
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(ROOT), str(folder.path)], cwd=tmp_path
    )
    try:
        wait_for(folder, lambda e: e.kind == "step" and e.data["step"] >= 3)
    finally:
        parent.kill()
        parent.wait()
    wait_for(folder, lambda e: e.kind == "stopped")
    assert list(folder.checkpoints.glob("step-*"))
    assert not list(tmp_path.glob("loras/*"))


PARENT = """
import runpy, sys, time
from pathlib import Path
runpy.run_path(sys.argv[1] + "/__main__.py", run_name="x")["load_package"]()
from likeness.trainers.job import Job
from likeness.trainers.run_folder import RunFolder
job = Job(RunFolder(Path(sys.argv[2])), device="cpu")
time.sleep(600)
"""


def wait_for(folder, wanted, seconds=120):
    reader, deadline = EventReader(folder.events), time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any(wanted(event) for event in reader.new_events()):
            return
        time.sleep(0.05)
    raise AssertionError(folder.log.read_text())


def test_previews_and_validation_are_drawn_and_said(train, tmp_path):
    settings = [
        'previews={"prompts": ["a photo of {token} {class}"], "every": 3, "width": 64, '
        '"height": 64, "steps": 2}',
        "subject.holdout=1",
        "validate_every=2",
    ]
    train(settings=settings)
    events = EventReader(only("output/likeness/runs/*/events.jsonl", tmp_path)).new_events()
    kinds = [event.kind for event in events]
    assert kinds.count("validation") == 2
    previews = [event for event in events if event.kind == "preview"]
    assert [event.data["step"] for event in previews] == [0, 3, 4]
    run = only("output/likeness/runs/*", tmp_path)
    assert all((run / event.data["path"]).is_file() for event in previews)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["method.rank=0"], "rank"),
        (['prior.prompt=" "'], "prior.prompt"),
        (["name=../x"], "name"),
        (["nonsense"], "FIELD=VALUE"),
        (["schedule.step=4"], "schedule.step"),
    ],
)
def test_a_wrong_setting_is_one_clear_error(train, tmp_path, settings, says):
    done = train(settings=settings, check=False)
    assert done.returncode == 1
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "output").exists()


def test_a_failure_in_the_run_tells_its_cause_and_the_log(base, photos, tmp_path):
    from likeness.trainers.errors import RunFailed

    where = places(tmp_path, base, photos)
    recipe = small(["optimizer.learning_rate=10", "schedule.steps=400"]).changed(
        method={"kind": "dreambooth"}, optimizer={"max_grad_norm": None}
    )
    with pytest.raises(RunFailed) as caught:
        train(recipe, where, on_event=lambda e: None, device="cpu")
    assert "learning_rate" in str(caught.value) and "log.txt" in str(caught.value)


def test_a_mistyped_run_folder_is_named_and_not_made(likeness, tmp_path):
    done = likeness("run", tmp_path / "sujbect", check=False)
    assert done.returncode == 1 and f"{tmp_path / 'sujbect'} is not a run folder" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "sujbect").exists()


def test_the_lock_keeps_a_second_process_out(base, photos, tmp_path):
    recipe = small().changed(schedule={"steps": 100_000})
    folder = prepare(recipe, places(tmp_path, base, photos))
    first, second = Job(folder, device="cpu"), None
    try:
        wait_for(folder, lambda e: e.kind == "step")
        second = Job(folder, device="cpu")
        deadline = time.monotonic() + 120
        while second.exit_code() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert second.exit_code() == RunBusy.exit_code
        assert "already being trained by another process" in folder.log.read_text()
        assert first.exit_code() is None
        assert not any(e.kind == "failed" for e in EventReader(folder.events).new_events())
    finally:
        first.terminate()
        if second:
            second.terminate()


@pytest.mark.parametrize(
    ("settings", "folder"),
    [
        ([], "loras"),
        (
            [
                *('method={"kind": "dreambooth"}', "schedule.gradient_accumulation_steps=2"),
                *("optimizer.learning_rate=1e-5", "schedule.steps=3"),
            ],
            "checkpoints",
        ),
    ],
)
def test_two_processes_learn_what_one_does_with_the_same_global_batch(
    train, tmp_path, settings, folder
):
    same = ["saving.dtype=fp32", *settings]
    train("--output", "one", settings=["schedule.batch_size=2", *same])
    train("--output", "two", "--processes", 2, settings=["schedule.batch_size=1", *same])
    results = [
        json.loads(only(f"{n}/likeness/runs/*/result.json", tmp_path).read_text())
        for n in ("one", "two")
    ]
    assert results[0]["losses"] == pytest.approx(results[1]["losses"], abs=1e-5)
    one, two = (load_file(only(f"{n}/{folder}/*.safetensors", tmp_path)) for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name in one:
        assert (one[name] - two[name]).abs().max() < 1e-5


@pytest.mark.skipif(os.name == "nt", reason="pipes there end in another way")
def test_output_that_nobody_reads_to_its_end_was_told_as_an_error(tmp_path):
    """As by `likeness schema | head -1`."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT), "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) == 141
