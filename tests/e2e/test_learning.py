"""That training teaches: the judge finds the subject on images of a LoRA, not of the base."""

import pytest
from likeness.demo import quality


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """The judge's numbers of the base and of a LoRA of few steps, of a person it never saw."""
    # A higher rate than the preset's learns in fewer steps.
    options = quality.Options(
        out=tmp_path_factory.mktemp("learning"), rows=("base", "lora-r4"), people=1, seeds=1,
        settings=("schedule.steps=100", "optimizer.learning_rate=4e-3", "prior.count=8"),
        draws=1, say=lambda text: None,
    )  # fmt: skip
    found = quality.read_lines(quality.run(options))
    return {line["row"]: line for line in found}


def test_a_lora_of_a_minute_draws_the_subject(lines):
    base, lora = lines["base"], lines["lora-r4"]
    assert lora["identity"] > base["identity"] + 0.3


def test_a_lora_of_a_minute_still_draws_what_is_asked(lines):
    # One person has few images.
    assert lines["lora-r4"]["prompt"] > lines["base"]["prompt"] - 0.2
