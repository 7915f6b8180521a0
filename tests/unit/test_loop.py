"""Parts of the loop that a CPU cannot show."""

from types import SimpleNamespace

import pytest
from likeness.trainers import loop
from likeness.trainers.presets import preset


@pytest.mark.parametrize(
    ("changes", "moved"),
    [
        ({"text_encoder": {"train": False}}, ["cpu"]),
        ({"text_encoder": {"last_step": 4}}, []),  # its weights are in checkpoints
        ({"text_encoder": {"train": False}, "objective": {"ema_decay": 0.9}}, []),
        (
            {"text_encoder": {"train": False}, "previews": {"every": 1, "prompts": ["a cat"]}},
            [],
        ),
    ],
)
def test_a_text_encoder_that_nothing_asks_any_more_leaves_the_device(changes, moved):
    places = []
    base = SimpleNamespace(text_encoder=SimpleNamespace(to=places.append))
    loop.put_away_text_encoder(preset("lora-r4").changed(**changes), base)
    assert places == moved
