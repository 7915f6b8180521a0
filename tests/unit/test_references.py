"""Which photographs scores compare with."""

import numpy as np
from likeness.comparison.plan_file import PlanFile
from likeness.comparison.references import trained_photographs
from PIL import Image


def plan_of(*resolutions):
    """A plan with a row to train for each resolution."""
    subjects = [{"resolution": one} for one in resolutions]
    rows = [{"name": f"r{n}", "recipe": {"subject": one}} for n, one in enumerate(subjects)]
    return PlanFile.model_validate({"rows": rows or [{"name": "base"}]})


def test_photographs_too_small_to_be_trained_were_references_of_the_scores(tmp_path):
    for number, side in enumerate((128, 128, 100, 80, 32)):
        noise = np.random.default_rng(number).integers(0, 255, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    for made, count in ((plan_of(), 4), (plan_of(128, 96), 3), (plan_of(128), 2)):
        assert len(trained_photographs(made, tmp_path)) == count
    assert len(trained_photographs(plan_of(512), tmp_path)) == 4, "none is large enough"
    assert trained_photographs(plan_of(), None) == []
