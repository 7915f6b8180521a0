"""Class images: shared by content, resumable image by image, the same however they are drawn."""

import errno
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from likeness.demo.random_model import write_random_model
from likeness.trainers import class_image_files, dataset
from likeness.trainers import prior as module
from likeness.trainers.base_model import load_base
from likeness.trainers.batches import used_class_images
from likeness.trainers.class_image_files import (
    image_path,
    list_class_images,
    missing,
    remove_damaged,
)
from likeness.trainers.class_image_sets import class_images_folder
from likeness.trainers.errors import OutOfSpace, RunCancelled, SubjectError
from likeness.trainers.prior import draw_class_images
from likeness.trainers.recipe import Prior, Recipe
from likeness.trainers.subject import load_pixels
from PIL import Image

CPU = torch.device("cpu")
SIZE = 64


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    return load_base(write_random_model(folder / "tiny.safetensors"), [folder / "tiny_tokenizer"])


def draw(base, folder, count, prompts=("a photo of man",), **options):
    prior = Prior(count=count, steps=2, guidance=3.0)
    draw_class_images(base, prior, prompts, folder, device=CPU, size=SIZE, **options)


def images(folder, count):
    return [np.asarray(Image.open(image_path(folder, index))) for index in range(count)]


def test_several_prompts_are_drawn_in_turn(base, tmp_path):
    """Image i is of prompt i modulo their number, as one alone with that prompt would be."""
    prior, options = Prior(count=5, steps=2, guidance=3.0), {"device": CPU, "size": SIZE}
    prompts = ["a photo of man", "a man in the kitchen"]
    draw_class_images(base, prior, prompts, tmp_path / "both", **options)
    for number, prompt in enumerate(prompts):
        draw_class_images(base, prior, [prompt], tmp_path / str(number), **options)
    both = images(tmp_path / "both", 5)
    each = [images(tmp_path / str(number), 5) for number in range(2)]
    assert not np.array_equal(each[0][0], each[1][0])
    for index, image in enumerate(both):
        np.testing.assert_allclose(image, each[index % 2][index], atol=1)
    about = json.loads((tmp_path / "both" / "prompt.json").read_text())
    assert about["prompt"] == "a photo of man\na man in the kitchen"


@pytest.mark.parametrize(
    "changed",
    [{"negative": "a woman"}, {"guidance": 1.0}, {"steps": 3}, {"seed": 1}],
    ids=lambda changed: next(iter(changed)),
)
def test_each_setting_of_the_prior_changes_its_images(base, tmp_path, changed):
    for name, more in (("plain", {}), ("changed", changed)):
        prior = Prior(**{"count": 1, "steps": 2, "guidance": 3.0, **more})
        prompts = ["a photo of man"]
        draw_class_images(base, prior, prompts, tmp_path / name, device=CPU, size=SIZE)
    plain, other = images(tmp_path / "plain", 1), images(tmp_path / "changed", 1)
    assert not np.array_equal(plain[0], other[0])


def test_class_images_of_a_base_that_predicts_v_are_drawn_so(base, tmp_path):
    draw(base, tmp_path / "epsilon", 1)
    draw(replace(base, prediction="v_prediction"), tmp_path / "v", 1)
    assert not np.array_equal(*images(tmp_path / "epsilon", 1), *images(tmp_path / "v", 1))


def test_what_another_run_draws_meanwhile_is_left_as_it_is(base, tmp_path, monkeypatch):
    folder, real = tmp_path / "set", module._ImageGenerator.images

    def slowly(artist, indices):
        images = real(artist, indices)
        if not image_path(folder, 2).exists():  # the other run is here, and further
            for index in (2, 9):
                Image.new("RGB", (SIZE, SIZE), "red").save(image_path(folder, index))
        return images

    monkeypatch.setattr(module._ImageGenerator, "images", slowly)
    draw(base, folder, 10)
    drawn = images(folder, 10)
    assert [bool((image == (255, 0, 0)).all()) for image in drawn] == [
        index in (2, 9) for index in range(10)
    ]


def test_class_images_of_a_long_prompt_showed_less_of_it_than_was_trained(base, tmp_path):
    ends, most = ("red", "blue"), {"whole": 150, "cut": 75}
    drawn = {}
    for kind, max_tokens in most.items():
        for end in ends:
            folder = tmp_path / kind / end
            draw(base, folder, 1, prompts=[f"{'photo ' * 75}{end}"], max_tokens=max_tokens)
            (drawn[kind, end],) = images(folder, 1)
    assert (drawn["cut", "red"] == drawn["cut", "blue"]).all()
    assert (drawn["whole", "red"] != drawn["whole", "blue"]).any()


def test_a_set_is_drawn_extended_and_mended(base, tmp_path):
    folder, told = tmp_path / "set", []
    draw(base, folder, 2, progress=lambda *at: told.append(at))
    assert told == [(0, 2), (2, 2)]
    assert missing(folder, range(4)) == [2, 3]
    first = images(folder, 2)
    assert first[0].shape == (SIZE, SIZE, 3)
    assert not np.array_equal(first[0], first[1])

    whole = image_path(folder, 0).read_bytes()
    image_path(folder, 0).write_bytes(whole[:-30])
    kept = image_path(folder, 1).stat().st_mtime_ns
    told.clear()
    draw(base, folder, 3, progress=lambda *at: told.append(at))
    assert told == [(1, 3), (3, 3)]
    assert missing(folder, range(3)) == []
    assert image_path(folder, 0).read_bytes() == whole
    assert image_path(folder, 1).stat().st_mtime_ns == kept
    about = json.loads((folder / "prompt.json").read_text())
    assert about["prompt"] == "a photo of man"
    assert sorted(path.name for path in folder.iterdir()) == [
        "000000.png", "000001.png", "000002.png", "prompt.json"]  # fmt: skip

    told.clear()
    draw(base, folder, 3, progress=lambda *at: told.append(at))
    assert told == [(3, 3)]


def test_processes_share_a_set_and_draw_the_same(base, tmp_path):
    draw(base, tmp_path / "alone", 6)
    draw(base, tmp_path / "shared", 6, rank_and_world=(1, 2))
    assert missing(tmp_path / "shared", range(6)) == [0, 1, 2, 3]
    draw(base, tmp_path / "shared", 6, rank_and_world=(0, 2))
    for one, other in zip(
        images(tmp_path / "alone", 6), images(tmp_path / "shared", 6), strict=True
    ):
        assert np.array_equal(one, other)


def test_cancelling_keeps_what_is_drawn(base, tmp_path):
    with pytest.raises(RunCancelled):
        draw(base, tmp_path, 6, interrupted=lambda: image_path(tmp_path, 0).exists())
    assert missing(tmp_path, range(6)) == [4, 5]


@pytest.mark.parametrize("damage", [b"", b"\x89PNG", b"x" * 100])
def test_damaged_files_are_missing(tmp_path, damage):
    Image.new("RGB", (8, 8)).save(image_path(tmp_path, 0))
    image_path(tmp_path, 1).write_bytes(damage)
    assert missing(tmp_path, range(2)) == [1]
    assert missing(tmp_path / "absent", range(2)) == [0, 1]


def test_a_full_disk_is_said_before_drawing(base, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 3 * SIZE * SIZE})
    monkeypatch.setattr(class_image_files.shutil, "disk_usage", lambda folder: usage)
    draw(base, tmp_path / "one", 1)
    with pytest.raises(OutOfSpace, match="fewer class images"):
        draw(base, tmp_path / "two", 2)
    assert missing(tmp_path / "two", range(2)) == [0, 1]


def test_a_disk_that_fills_up_keeps_what_is_drawn(base, tmp_path, monkeypatch):
    write = class_image_files.write_atomic

    def full(path, data, **options):
        if path == image_path(tmp_path, 1):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, data, **options)

    monkeypatch.setattr(class_image_files, "write_atomic", full)
    with pytest.raises(OutOfSpace, match="images generated so far are kept"):
        draw(base, tmp_path, 2)
    assert missing(tmp_path, range(2)) == [1]


def test_drawn_images_are_read_in_their_order(base, tmp_path):
    draw(base, tmp_path, 2)
    photos = list_class_images(tmp_path, range(2), SIZE)
    for photo, image in zip(photos, images(tmp_path, 2), strict=True):
        assert np.array_equal(load_pixels(photo), image)
    with pytest.raises(SubjectError, match="000002"):
        list_class_images(tmp_path, range(3), SIZE)
    with pytest.raises(SubjectError, match=r"000000\.png is not 32x32"):
        load_pixels(list_class_images(tmp_path, range(1), 32)[0])
    damage(image_path(tmp_path, 0))
    with pytest.raises(SubjectError, match=r"000000\.png: .* damaged"):
        load_pixels(list_class_images(tmp_path, range(1), SIZE)[0])


def damage(path):
    """Changes a few bytes in the middle of a file."""
    data = path.read_bytes()
    path.write_bytes(data[:60] + bytes(80) + data[140:])


def noise(folder, *numbers):
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    for number in numbers:
        Image.fromarray(pixels).save(image_path(folder, number))


@pytest.mark.parametrize(
    "damaged",
    [
        lambda data: data[:-30],
        lambda data: data[:200] + data[230:],
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda data: data[:33] + b"\xff\xff\xff\xff" + data[37:],  # the length of a chunk
        lambda data: data + data[-20:],
        lambda data: data[:8] + data[-8:],
        lambda data: b"",
    ],
    ids=["cut short", "bytes lost", "one bit", "a length", "bytes behind", "no chunk", "empty"],
)
def test_what_is_damaged_anywhere_is_removed_and_nothing_else(tmp_path, damaged):
    noise(tmp_path, 0, 2, 3)
    for number in (2, 3):
        path = image_path(tmp_path, number)
        path.write_bytes(damaged(path.read_bytes()))
    assert remove_damaged(tmp_path, range(3)) == 1, "what a larger set has is not looked at"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000.png", "000003.png"]
    assert remove_damaged(tmp_path, range(3)) == remove_damaged(tmp_path / "absent", range(3)) == 0


def test_a_damaged_image_that_cannot_be_removed_is_said(tmp_path, monkeypatch):
    def refuse(path, missing_ok):
        raise PermissionError(errno.EACCES, "Permission denied")

    noise(tmp_path, 0)
    damage(image_path(tmp_path, 0))
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(SubjectError, match=r"000000\.png .*\(Permission denied\)\. Delete it"):
        remove_damaged(tmp_path, range(1))


def test_other_errors_of_drawing_come_out(base, tmp_path, monkeypatch):
    def draw_part(artist, indices):
        raise RuntimeError("expected all tensors on one device")

    monkeypatch.setattr(module._ImageGenerator, "images", draw_part)
    with pytest.raises(RuntimeError, match="one device"):
        draw(base, tmp_path, 4)


def run_on(device, **parts):
    one = SimpleNamespace(num_processes=1, device=torch.device(device))
    stop = SimpleNamespace(check=lambda: None)
    return SimpleNamespace(**{"accelerator": one, "stop": stop, **parts})


def save(folder, *numbers):
    for number in numbers:
        Image.new("RGB", (SIZE, SIZE)).save(image_path(folder, number))


def run_of_six(cache, steps=800, **accelerator):
    """A run with six class images on the CPU, and what it notes."""
    prior, notes = Prior(count=6, steps=2), []
    one = SimpleNamespace(
        **{"device": CPU, "num_processes": 1, "process_index": 0, "is_main_process": True,
           "wait_for_everyone": lambda: None, **accelerator},
    )  # fmt: skip
    run = SimpleNamespace(
        recipe=Recipe(prior=prior, subject={"resolution": SIZE}, schedule={"steps": steps}),
        places=SimpleNamespace(cache=cache),
        accelerator=one,
        stop=SimpleNamespace(check=lambda: None, local_request=lambda: False),
        progress=lambda *at: None,
        note=notes.append,
    )
    return run, class_images_folder(run.recipe, run.places, prior), notes


def test_a_class_image_damaged_in_its_middle_is_drawn_again_in_the_same_run(base, tmp_path):
    run, folder, notes = run_of_six(tmp_path)
    dataset.draw_missing_class_images(run, base)
    drawn = [image_path(folder, index).read_bytes() for index in range(6)]
    kept = image_path(folder, 4).stat().st_mtime_ns
    assert notes == []

    damage(image_path(folder, 5))
    assert missing(folder, range(6)) == []  # a quick look does not see it
    dataset.draw_missing_class_images(run, base)
    assert [image_path(folder, index).read_bytes() for index in range(6)] == drawn
    assert image_path(folder, 4).stat().st_mtime_ns == kept
    assert notes == [f"Damaged class images in {folder}, now generated again: 1."]


def test_class_images_are_drawn_with_the_recipes_clip_skip(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(dataset, "draw_class_images", lambda *_, **named: given.update(named))
    run, _, _ = run_of_six(tmp_path)
    run.recipe = run.recipe.changed(text_encoder={"clip_skip": 2})
    dataset.draw_missing_class_images(run, None)
    assert given["clip_skip"] == 2


def test_of_several_processes_one_removes_what_is_damaged_before_the_others_look(base, tmp_path):
    run, folder, _ = run_of_six(tmp_path)
    dataset.draw_missing_class_images(run, base)
    whole = image_path(folder, 5).read_bytes()
    damage(image_path(folder, 5))

    def wait():  # the main process is done with it
        remove_damaged(folder, range(6))

    others = {"num_processes": 2, "process_index": 1, "is_main_process": False}
    run, _, notes = run_of_six(tmp_path, **others, wait_for_everyone=wait)
    dataset.draw_missing_class_images(run, base)
    assert image_path(folder, 5).read_bytes() == whole and notes == []


def test_class_images_were_drawn_that_the_run_never_shows(base, tmp_path):
    """A run of two steps shows two; a longer one draws the others, and the same ones."""
    told = []
    for steps, progress in ((2, ((0, 2), (2, 2))), (6, ((2, 6), (6, 6)))):
        run, folder, notes = run_of_six(tmp_path / "short", steps=steps)
        run.progress = lambda name, *at: told.append(at)
        dataset.draw_missing_class_images(run, base)
        assert (told[0], told[-1]) == progress and notes == []
        numbers = used_class_images(run.recipe, 6)
        assert len(numbers) == steps
        assert missing(folder, range(6)) == [i for i in range(6) if i not in numbers]
        told.clear()
    run, whole, _ = run_of_six(tmp_path / "long")
    dataset.draw_missing_class_images(run, base)
    for index in range(6):
        assert image_path(folder, index).read_bytes() == image_path(whole, index).read_bytes()


def test_what_a_run_does_not_show_takes_no_room_and_may_be_damaged(base, tmp_path, monkeypatch):
    run, folder, notes = run_of_six(tmp_path, steps=2)
    folder.mkdir(parents=True)
    (other,) = [i for i in range(6) if i not in used_class_images(run.recipe, 6)][:1]
    image_path(folder, other).write_bytes(b"damaged")
    usage = type("Usage", (), {"free": 5 * SIZE * SIZE})  # of two images, not of six
    monkeypatch.setattr(class_image_files.shutil, "disk_usage", lambda folder: usage)
    dataset.draw_missing_class_images(run, base)
    assert notes == [] and image_path(folder, other).read_bytes() == b"damaged"


def test_processes_share_evenly_what_is_drawn_of_a_set():
    shares = [module._shard([0, 3, 9, 12, 13, 30, 31], 4, (rank, 2)) for rank in (0, 1)]
    assert shares == [[0, 3, 12, 13], [9, 30, 31]]
    assert module._shard(range(6), 1, (1, 3)) == [1, 4]


def test_a_run_waits_while_another_draws_the_same_set(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_POLL_SECONDS", 0)
    folder, told = tmp_path / "set", []
    folder.mkdir()
    other = FileLock(folder / ".lock", thread_local=False)
    other.acquire()

    def progress(*at):  # the other run draws one more, and is done
        told.append(at)
        save(folder, 0)
        other.release()

    with dataset._drawing_lock(run_on("cuda", progress=progress), folder, range(2)) as from_end:
        assert (
            told == [("class images", 0, 2)] and missing(folder, range(2)) == [1] and not from_end
        )
        with pytest.raises(Timeout):
            FileLock(folder / ".lock").acquire(timeout=0)
    FileLock(folder / ".lock").acquire(timeout=0)


def test_a_run_that_needs_fewer_goes_on_while_the_other_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_POLL_SECONDS", 0)
    folder = tmp_path / "set"
    folder.mkdir()
    run = run_on("cuda", progress=lambda *at: save(folder, 0, 1))
    with FileLock(folder / ".lock"), dataset._drawing_lock(run, folder, range(2)):
        assert not missing(folder, range(2))


def test_on_a_cpu_a_second_run_draws_from_the_end_on(tmp_path, base):
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    draw(base, whole, 10)
    shared.mkdir()
    drawn = []

    def step(done, total):
        drawn.append(missing(shared, range(10)))

    with (
        FileLock(shared / ".lock"),
        dataset._drawing_lock(run_on("cpu"), shared, range(10)) as from_end,
    ):
        assert from_end
        draw(base, shared, 10, progress=step, from_end=from_end)
    block = module._cpu_batch_size(SIZE)
    assert block > 1 and drawn[1] == list(range(10 - 10 % block))  # the last block came first
    assert drawn[-1] == []
    for index in range(10):
        assert image_path(shared, index).read_bytes() == image_path(whole, index).read_bytes()


def test_a_run_that_waits_can_be_stopped(tmp_path):
    def check():
        raise RunCancelled("stop")

    run = run_on("cuda", progress=lambda *at: None, stop=SimpleNamespace(check=check))
    (tmp_path / "set").mkdir()
    with FileLock(tmp_path / "set" / ".lock"), pytest.raises(RunCancelled):  # noqa: SIM117
        with dataset._drawing_lock(run, tmp_path / "set", range(2)):
            pytest.fail("drew beside the other run")
