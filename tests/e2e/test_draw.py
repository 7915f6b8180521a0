"""`likeness draw`: each flag changes the image as it says (in this process, to save time)."""

import runpy
from itertools import count
from pathlib import Path

import pytest
from likeness.cli import main
from PIL import Image

MODELS = runpy.run_path(str(Path(__file__).resolve().parents[1] / "models.py"))


@pytest.fixture
def adapter(base, tmp_path):
    return MODELS["write_random_lora"](base, tmp_path / "a.safetensors")


@pytest.fixture
def drawn(base, tmp_path):
    """Draws "a man" with more arguments; the images as bytes."""

    calls = count()

    def draw(*arguments, prompts=("a man",)):
        folder = tmp_path / f"drawn {next(calls)}"
        small = {"--width": 64, "--height": 64, "--steps": 2, "--output": folder}
        flags = [str(word) for pair in small.items() for word in pair]
        assert main(["draw", *prompts, "--base", str(base), *flags, *map(str, arguments)]) == 0
        files = [folder / f"image-{index}.png" for index in range(len(prompts))]
        images = [Image.open(file) for file in files]
        assert all(image.size[0] >= 64 for image in images)
        return [image.tobytes() for image in images]

    return draw


def test_an_adapter_shows_at_strength_1_and_not_at_0(drawn, adapter):
    base, again = drawn(), drawn()
    assert base == again
    assert drawn("--adapter", adapter, "--strength", 0) == base
    whole, half = drawn("--adapter", adapter), drawn("--adapter", adapter, "--strength", 0.5)
    assert drawn("--adapter", adapter, "--strength", 1) == whole
    assert len({*base, *whole, *half}) == 3


@pytest.mark.parametrize(
    "flags",
    [
        ("--seed", 1),
        ("--negative", "a dog"),
        ("--guidance", 2),
        ("--steps", 3),
        ("--clip-skip", 2),
        ("--width", 72),
        ("--height", 72),
    ],
    ids=lambda flags: flags[0],
)
def test_each_flag_changes_the_image(drawn, flags):
    assert drawn(*flags) != drawn()


def test_a_second_drawing_replaced_the_images_of_the_first(base, tmp_path, capsys):
    small = [f"--{name}={value}" for name, value in (("width", 64), ("height", 64), ("steps", 1))]
    for prompts in (["a man"], ["a dog", "a cat"]):
        command = ["draw", *prompts, "--base", str(base), "--output", str(tmp_path), *small]
        assert main(command) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines() if ".png" in line]
    assert names == ["image-0.png", "image-1.png", "image-2.png"]


def test_each_prompt_has_its_own_image_from_the_same_noise(drawn):
    both = drawn(prompts=("a man", "a dog"))
    assert both[0] != both[1]
    assert both[:1] == drawn()
