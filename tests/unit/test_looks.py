"""What a run shows and leaves on its way, and when."""

import pytest
from likeness.trainers import looks
from likeness.trainers.graphs import Recorded
from likeness.trainers.presets import preset


class Held(Recorded):
    """Stands for recordings that hold memory until they are forgotten."""

    def __init__(self):
        self.held = True

    def forget(self):
        self.held = False


def out_of_memory(*_):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_previews_without_room_beside_recordings_are_drawn_without_those(monkeypatch):
    compute, seen = Held(), []

    def show(run, training, done):
        seen.append(done)
        if compute.held:
            out_of_memory()

    monkeypatch.setattr(looks, "_look", show)
    looks.look(None, None, 7, compute)
    assert seen == [7, 7] and not compute.held


@pytest.mark.parametrize("compute", [Held(), len])
def test_what_still_fails_without_recordings_is_an_error(monkeypatch, compute):
    monkeypatch.setattr(looks, "_look", out_of_memory)
    with pytest.raises(RuntimeError, match="out of memory"):
        looks.look(None, None, 7, compute)


def test_what_is_due_after_which_steps():
    recipe = preset("lora-r4").changed(
        schedule={"steps": 10}, saving={"adapters_every": 4},
        previews={"every": 3, "prompts": ["a cat"]},
    )  # fmt: skip
    steps = range(11)
    assert [n for n in steps if looks.previews_due(recipe, n)] == [0, 3, 6, 9, 10]
    assert [n for n in steps[1:] if looks.adapter_due(recipe, n)] == [4, 8]
    even = recipe.changed(schedule={"steps": 8})
    assert not looks.adapter_due(even, 8), "the result's own file is saved then"
    assert [n for n in steps[1:] if looks.looks(recipe, n)] == [3, 4, 6, 8, 9, 10]
