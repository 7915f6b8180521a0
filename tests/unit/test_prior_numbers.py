"""Class images on a GPU that is not here: numbers that overflow in fp16, memory that is short."""

import weakref

import numpy as np
import pytest
import torch
from likeness.trainers import prior as module
from likeness.trainers.class_image_files import missing
from likeness.trainers.errors import RunFailed
from likeness.trainers.recipe import Prior

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = 64


class UNet(torch.nn.Linear):
    """Overflows in fp16."""

    @property
    def dtype(self):
        return self.weight.dtype


class Base:
    def __init__(self):
        self.unet, self.vae = UNet(2, 2, dtype=torch.float16), None


def draw_six(folder, base, device=CUDA, **options):
    module.draw_class_images(
        base, Prior(count=6), ["a man"], folder, device=device, size=SIZE, **options
    )


def grey(count):
    return np.full((count, SIZE, SIZE, 3), 128, np.uint8)


@pytest.fixture
def room_for(monkeypatch):
    """Sets the GPU's free memory, by the number of images that are thought to fit."""

    def free(images):
        free = int(images * 1e9 * (SIZE / 512) ** 2)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, free))

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce RTX 4090")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    return free


@pytest.fixture
def draw(monkeypatch, tmp_path, room_for):
    """Draws class images on a device; the base, what was told, and the files."""

    def latents(artist, indices):
        finite = artist.unet.weight.dtype is torch.float32
        return torch.full((len(indices), 4, 8, 8), 0.5 if finite else float("nan"))

    monkeypatch.setattr(module._ImageGenerator, "_latents", latents)
    monkeypatch.setattr(module, "decode", lambda vae, latents, batch: grey(len(latents)))
    room_for(2)
    base, told = Base(), []

    def run(device):
        draw_six(tmp_path, base, device, notice=told.append, graphs=False)
        return base, told

    run.folder = tmp_path
    return run


def test_class_images_of_a_gpu_without_fp16_are_drawn_in_fp32_at_once(draw, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce GTX 1660")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    base, told = draw(CUDA)
    assert missing(draw.folder, range(6)) == [] and told == []  # the run has said it already
    assert base.unet.dtype == torch.float16  # as it came


def test_what_overflows_in_fp16_is_drawn_in_fp32_and_said_once(draw):
    base, told = draw(CUDA)
    assert missing(draw.folder, range(6)) == []
    assert len(told) == 1 and "fp32" in told[0]
    assert base.unet.dtype is torch.float16, "the training has the weights as they were loaded"


def test_a_base_of_wrong_numbers_is_an_error_and_no_black_image(draw):
    with pytest.raises(RunFailed, match="NaN or infinite"):
        draw(CPU)
    assert missing(draw.folder, range(6)) == [0, 1, 2, 3, 4, 5]


@pytest.fixture
def tried(monkeypatch):
    """Replaces the drawing; how many images each attempt was to draw, and whether recorded.

    There is no memory for more of them than `fits` says, for which keys are recorded or not.
    """

    class Recorded:
        """Stands for a recorded UNet."""

    attempts, fits = [], {True: 16, False: 16}

    def images(artist, indices):
        recorded = isinstance(artist.unet, Recorded)
        attempts.append((len(indices), "recorded" if recorded else "plain"))
        if len(indices) > fits[recorded]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return grey(len(indices))

    monkeypatch.setattr(module._ImageGenerator, "images", images)
    monkeypatch.setattr(module, "graphed_unet", lambda unet, notice: Recorded())
    return attempts, fits


def test_as_many_are_drawn_at_once_as_the_memory_allows(tmp_path, tried, room_for):
    room_for(4)
    draw_six(tmp_path, Base())
    assert tried[0] == [(4, "recorded"), (2, "recorded")]


def test_where_memory_is_short_fewer_are_drawn_at_once(tmp_path, tried, room_for):
    room_for(8)
    attempts, fits = tried
    fits[False] = 2
    draw_six(tmp_path, Base(), graphs=False)
    assert attempts == [(count, "plain") for count in (6, 4, 2, 2, 2)]
    assert missing(tmp_path, range(6)) == []


def test_where_a_recording_leaves_no_memory_even_one_image_is_drawn_without(
    tmp_path, tried, room_for
):
    room_for(1)
    attempts, fits = tried
    fits[True] = 0
    draw_six(tmp_path, Base())
    assert attempts == [(1, "recorded"), *[(1, "plain")] * 6]
    assert missing(tmp_path, range(6)) == []


def test_half_as_many_are_drawn_when_there_is_no_memory_without_a_recording_either(
    tmp_path, tried, room_for
):
    room_for(4)
    attempts, fits = tried
    fits[True], fits[False] = 2, 3
    draw_six(tmp_path, Base())
    assert attempts == [(4, "recorded"), (4, "plain"), *[(2, "recorded")] * 3]


def test_no_memory_for_one_plain_image_is_an_error(tmp_path, tried, room_for):
    room_for(2)
    attempts, fits = tried
    fits[True] = fits[False] = 0
    with pytest.raises(torch.OutOfMemoryError):
        draw_six(tmp_path, Base())
    assert attempts == [(n, how) for n in (2, 1) for how in ("recorded", "plain")]


def test_on_a_cpu_short_memory_is_an_error_for_blocks_are_never_parted(tmp_path, tried):
    attempts, fits = tried
    fits[False] = 3
    with pytest.raises(torch.OutOfMemoryError):
        draw_six(tmp_path, Base(), CPU)
    assert attempts == [(4, "plain")]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_memory_that_is_short_while_drawing_is_there_again(
    tmp_path, monkeypatch, room_for, kind, text
):
    """Neither the recording nor what a failed call had made is held any longer."""
    recordings, made = [], []

    class Tensors:
        """What a call, or a recording, has on the GPU."""

    def recorded(unet, notice):
        one = Tensors()
        recordings.append(weakref.ref(one))
        return one

    def images(artist, indices):
        held = [one() for one in made + recordings if one() is not None]
        assert held == ([] if artist.unet is artist.base.unet else [artist.unet])
        if len(indices) > 2:
            tensors = Tensors()
            made.append(weakref.ref(tensors))
            raise kind(text)
        return grey(len(indices))

    monkeypatch.setattr(module._ImageGenerator, "images", images)
    monkeypatch.setattr(module, "graphed_unet", recorded)
    room_for(4)
    draw_six(tmp_path, Base())
    assert len(made) == 2 and missing(tmp_path, range(6)) == []
    assert len(recordings) == 2, "recorded anew for fewer images"


def test_images_at_once_follow_the_memory():
    assert module.gpu_batch_size(0, 512) == 1
    assert module.gpu_batch_size(8 << 30, 512) == 8
    assert module.gpu_batch_size(8 << 30, 256) == module.gpu_batch_size(80 << 30, 512) == 16
