"""Which photographs scores compare with."""

import numpy as np
from likeness.comparison.plan_file import PlanFile
from likeness.comparison.references import trained_photographs
from PIL import Image


def plan_of(*resolutions, **fields):
    """A plan with a row to train for each resolution."""
    subjects = [{"resolution": one, **fields} for one in resolutions]
    rows = [{"name": f"r{n}", "recipe": {"subject": one}} for n, one in enumerate(subjects)]
    return PlanFile.model_validate({"rows": rows or [{"name": "base"}]})


def save_noise(path, width, height):
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)


def test_photographs_too_small_to_be_trained_were_references_of_the_scores(tmp_path):
    for number, side in enumerate((128, 128, 100, 80, 32)):
        noise = np.random.default_rng(number).integers(0, 255, (side, side, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
    for made, count in ((plan_of(), 4), (plan_of(128, 96), 3), (plan_of(128), 2)):
        assert len(trained_photographs(made, tmp_path)) == count
    assert len(trained_photographs(plan_of(512), tmp_path)) == 4, "none is large enough"
    assert trained_photographs(plan_of(), None) == []


def test_photographs_trained_in_buckets_or_enlarged_were_no_references(tmp_path):
    save_noise(tmp_path / "wide.png", 256, 96)
    save_noise(tmp_path / "square.png", 128, 128)
    plain = trained_photographs(plan_of(128), tmp_path)
    assert [path.name for path in plain] == ["square.png"]
    for fields in ({"buckets": True}, {"enlarge": 1.5}):
        assert len(trained_photographs(plan_of(128, **fields), tmp_path)) == 2
    enlarged = [{"resolution": 128}, {"resolution": 128, "enlarge": 1.5}, {"resolution": 512}]
    rows = [{"name": f"r{n}", "recipe": {"subject": one}} for n, one in enumerate(enlarged)]
    both = trained_photographs(PlanFile.model_validate({"rows": rows}), tmp_path)
    assert sorted(path.name for path in both) == ["square.png", "wide.png"]
