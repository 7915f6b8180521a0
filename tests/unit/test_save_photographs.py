"""Images of other nodes as photographs, over stand-ins for ComfyUI's modules."""

import importlib
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from likeness.trainers.errors import LikenessError
from likeness.trainers.recipe import Subject
from likeness.trainers.subject import read_subject
from PIL import Image

STUB = runpy.run_path(str(Path(__file__).resolve().parents[1] / "comfy" / "stub.py"))


@pytest.fixture
def save(tmp_path):
    """Executes the node; returns the folder."""
    STUB["install"]({"get_input_directory": lambda: str(tmp_path)})
    module = importlib.import_module("likeness.nodes.save_photographs")

    def save(images, folder="prepared/anna", **inputs):
        module.SavePhotographs.validate_inputs(folder=[folder])
        (name,) = module.SavePhotographs.execute(images=images, folder=[folder], **inputs).args
        return tmp_path / name

    yield save
    STUB["install"]()


def noise(seed, count=1, size=64, channels=3):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, size, size, channels, generator=generator)


def spec(**fields):
    return Subject(resolution=64, **fields)


def test_batches_and_lists_of_any_sizes_become_photographs(save):
    folder = save([noise(0, count=2), noise(1, size=96)])
    photos = read_subject(folder, spec()).photos
    assert sorted(photo.width for photo in photos) == [64, 64, 96]
    sizes = {np.asarray(Image.open(path)).shape for path in folder.iterdir()}
    assert sizes == {(64, 64, 3), (96, 96, 3)}


def test_captions_and_masks_belong_to_their_images(save):
    masks = torch.zeros(2, 64, 64)
    masks[0, :, :32] = 1
    masks[1] = 1
    folder = save(
        [noise(0, count=2)], captions=["sks at sea", "sks at home"], masks=[masks[:1], masks[1:]]
    )
    photos = read_subject(folder, spec(captions=True, mask="file")).photos
    assert {photo.caption for photo in photos} == {"sks at sea", "sks at home"}
    for photo in photos:
        mask = Image.open(photo.path.with_name(f"{photo.path.stem}-masklabel.png"))
        assert mask.getextrema() == ((255, 255) if photo.caption == "sks at home" else (0, 255))


def test_transparency_is_kept(save):
    folder = save([noise(0, channels=4)])
    assert Image.open(next(folder.iterdir())).mode == "RGBA"


def test_the_folder_holds_exactly_the_last_images_and_the_users_own_files(save):
    folder = save([noise(0, count=2)], captions=["sks"])
    kept, own = sorted(folder.glob("*.png")), folder / "image-mine.png"
    own.write_bytes(b"")
    times = [path.stat().st_mtime_ns for path in kept]
    save([noise(0, count=2)], captions=["", ""])
    assert sorted(folder.iterdir()) == sorted([*kept, own])
    assert [path.stat().st_mtime_ns for path in kept] == times, "equal files are not written anew"
    save([noise(1)])
    assert len(list(folder.iterdir())) == 2 and own.exists()


def test_images_that_were_left_out_came_back_at_the_next_queue(save):
    folder = save([noise(0, count=2)], captions=["sks"])
    photo = next(folder.glob("*.png"))
    (folder / "left out").mkdir()
    for path in folder.glob(f"{photo.stem}.*"):
        path.rename(folder / "left out" / path.name)
    save([noise(0, count=2)], captions=["sks"])
    assert len(list(folder.glob("*.png"))) == len(list(folder.glob("*.txt"))) == 1
    assert not photo.exists()


def test_the_same_image_twice_is_one_photograph(save):
    assert len(list(save([noise(0), noise(0)]).iterdir())) == 1


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"captions": ["a", "b"]}, "3 images, but 2 captions"),
        ({"masks": [torch.zeros(2, 64, 64)]}, "3 images, but 2 masks"),
        ({"masks": [torch.zeros(1, 32, 64)]}, "A mask is 64 x 32 pixels, its image 64 x 64"),
        ({"folder": "../outside"}, "not a valid folder name"),
    ],
    ids=["captions", "masks", "size", "folder"],
)
def test_what_does_not_fit_is_told_and_nothing_is_written(save, tmp_path, inputs, says):
    with pytest.raises(LikenessError, match=says):
        save([noise(0, count=3)], **inputs)
    assert not list(tmp_path.iterdir())


def test_values_out_of_range_are_clipped(save):
    image = torch.tensor([float("nan"), -1.0, 2.0]).expand(1, 64, 64, 3)
    folder = save([image])
    assert np.asarray(Image.open(next(folder.iterdir())))[0, 0].tolist() == [0, 0, 255]


def test_captions_that_another_program_wrote_were_removed(save):
    folder = save([noise(0)])
    (image,) = folder.iterdir()
    image.with_suffix(".txt").write_text("sks at sea")
    save([noise(0)])
    assert image.with_suffix(".txt").read_text() == "sks at sea"
    save([noise(1)])
    assert not image.with_suffix(".txt").exists(), "it goes with its image"


def test_another_encoders_file_of_the_same_pixels_is_kept(save):
    folder = save([noise(0)])
    (image,) = folder.iterdir()
    Image.open(image).save(image, compress_level=0)
    before = image.read_bytes()
    save([noise(0)])
    assert [path.read_bytes() for path in folder.iterdir()] == [before]


def test_a_caption_that_changed_was_not_read_again_by_a_connected_subject(save, tmp_path):
    folder = save([noise(0)])
    module = importlib.import_module("likeness.nodes.save_photographs")

    def fingerprint():
        return module.SavePhotographs.fingerprint_inputs(folder=["prepared/anna"])

    seen = [fingerprint(), fingerprint()]
    assert seen[0] == seen[1]
    next(folder.glob("*.png")).with_suffix(".txt").write_text("sks")
    seen.append(fingerprint())
    (folder / "left out").mkdir()
    (folder / "left out" / "a.png").touch()
    seen.append(fingerprint())
    assert len(set(seen)) == 3
    assert "not a valid folder name" in module.SavePhotographs.fingerprint_inputs(folder=["../x"])


def test_two_nodes_of_one_folder_removed_each_others_images(save):
    module = importlib.import_module("likeness.nodes.save_photographs")
    plan = importlib.import_module("likeness.nodes.static_plan")
    nodes = {
        str(number): {"class_type": module.NODE_ID, "inputs": {"folder": folder}}
        for number, folder in enumerate(["prepared", "prepared/anna", ["9", 0], "../x"])
    }
    plan.on_prompt({"prompt": nodes})
    save([noise(1)], folder="prepared")
    nodes["9"] = {"class_type": module.NODE_ID, "inputs": {"folder": "Prepared\\Anna"}}
    with pytest.raises(LikenessError, match="'anna' and would remove each other's"):
        save([noise(1)], folder="prepared/anna")
    plan.on_prompt({})


def test_a_batch_without_images_emptied_the_folder(save):
    folder = save([noise(1)])
    with pytest.raises(LikenessError, match="no images to save"):
        save([noise(1, count=0)])
    assert len([*folder.iterdir()]) == 1
