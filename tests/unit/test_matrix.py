import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from likeness.comparison.errors import ComparisonError
from likeness.comparison.keypoints import yoga_poses
from likeness.comparison.matrix import (
    Control,
    ImageSettings,
    Variant,
    plan,
    plan_from_data,
    read_plan,
)
from likeness.comparison.prompts import bundled_set, prompt_set_from_text

STUDY = bundled_set("study").filled("sks", "man")
BASE = Variant(name="base")
TINY, STANDARD, R1, R4, R8 = (
    Variant(name=name, adapter=digit * 64)
    for digit, name in zip(
        "12345", ["tiny", "standard", "lora-r1", "lora-r4", "lora-r8"], strict=True
    )
)


def both(variant):
    return Variant(**{**variant.model_dump(), "with_pose": "both"})


def digests(a_plan):
    return {(a_plan.rows()[cell.row], cell.key): a_plan.digest_of(cell) for cell in a_plan.cells()}


def test_the_study_is_eight_rows_of_six_prompts():
    study = plan([BASE, TINY, both(STANDARD), both(R1), R4, R8], STUDY, yoga_poses(), seed=42)
    assert study.rows() == (
        "base", "tiny", "standard", "standard_cnet",
        "lora-r1", "lora-r1_cnet", "lora-r4", "lora-r8",
    )  # fmt: skip
    assert study.columns() == tuple(prompt.key for prompt in STUDY.prompts)
    cells = study.cells()
    assert [divmod(index, 6) for index in range(48)] == [(c.row, c.column) for c in cells]
    files = [study.file_path(cell) for cell in cells]
    assert files[0] == "base/768x1024/sunglasses.png"
    assert files[3 * 6 + 4] == "standard_cnet/768x1024/forest.png"
    assert study.file_path(cells[0], "jpg") == "base/768x1024/sunglasses.jpg"
    assert len(set(map(str.lower, files))) == 48
    assert (study.image.steps, study.image.guidance) == (35, 7.5)


def test_noise_and_pose_are_the_same_down_a_column():
    made = plan([BASE, R1], STUDY, yoga_poses(), seed=3, with_pose="both", draws=2)
    for column in range(len(made.columns())):
        cells = [cell for cell in made.cells() if cell.column == column]
        assert len({cell.seed for cell in cells}) == 1
        assert len({cell.pose for cell in cells if cell.with_pose}) == 1
        assert [cell.with_pose for cell in cells] == [False, True, False, True]
    posed = [cell.pose for cell in made.cells() if cell.with_pose]
    assert posed[0::2] != posed[1::2], "draws of a prompt have poses of their own"


def test_more_draws_of_a_prompt_have_seeds_and_files_of_their_own():
    check = bundled_set("knowledge-check").filled("sks", "man")
    made = plan([BASE], check, seed=10, draws=3)
    assert [(cell.key, cell.seed) for cell in made.cells()] == [
        ("name", 10), ("name@2", 11), ("name@3", 12),
    ]  # fmt: skip
    assert len(set(digests(made).values())) == 3


def test_each_image_has_a_digest_of_its_own():
    made = plan([BASE, R1, R4], STUDY, yoga_poses(), with_pose="both")
    assert len(set(digests(made).values())) == 36


def test_a_finished_image_is_found_after_rows_move_and_change_their_names():
    before = digests(plan([BASE, R1], STUDY))
    renamed = Variant(name="mine", adapter=R1.adapter)
    after = digests(plan([renamed, R8, BASE], STUDY))
    for key in STUDY.prompts:
        assert after["mine", key.key] == before["lora-r1", key.key]
        assert after["base", key.key] == before["base", key.key]


def test_one_prompt_changed_changes_its_column_only():
    text = "a = a man\nb = a dog\nc = a cat"
    before = digests(plan([BASE, R1], prompt_set_from_text(text), yoga_poses(), with_pose="both"))
    after = digests(
        plan(
            [BASE, R1],
            prompt_set_from_text(text.replace("dog", "bear")),
            yoga_poses(),
            with_pose="both",
        )
    )
    assert {key for _, key in before if before[_, key] != after[_, key]} == {"b"}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"base": "9" * 64},
        {"image": ImageSettings(steps=20)},
        {"control": Control(strength=0.5)},
        {"variants": [Variant(name="lora-r1", adapter=R4.adapter)]},
        {"variants": [Variant(name="lora-r1", adapter=R1.adapter, strength_text=0.5)]},
        {"prompts": STUDY.model_copy(update={"negative": "blurry"})},
        {"poses": [pose.model_copy(update={"aspect": 1.0}) for pose in yoga_poses()]},
    ],
)
def test_all_that_decides_an_image_is_in_its_digest(change):
    parts = {"variants": [R1], "prompts": STUDY, "poses": yoga_poses(), "with_pose": "with"}
    before, after = digests(plan(**parts)), digests(plan(**{**parts, **change}))
    assert not set(before.values()) & set(after.values())


def test_clip_skip_and_prediction_are_part_of_a_digest_where_there_are_any():
    prompts = prompt_set_from_text("a = on the beach")
    digest = "0" * 64

    def one(**fields):
        made = plan([Variant(name="r4", adapter=digest, **fields)], prompts)
        return made.digest_of(made.cells()[0])

    assert one() == one(clip_skip=1) != one(clip_skip=2)
    assert one() != one(prediction="v_prediction") != one(prediction="epsilon")


def test_controlnet_has_no_part_in_images_without_a_pose():
    before = plan([R1], STUDY, control=Control(strength=1.0))
    after = plan([R1], STUDY, yoga_poses(), control=Control(strength=0.5))
    assert digests(before) == digests(after)


def test_json_gives_the_plan_back(tmp_path):
    made = plan([BASE, both(R1)], STUDY, yoga_poses(), seed=2**64 - 1, draws=2)
    again = plan_from_data(json.loads(made.to_json()))
    assert again == made and digests(again) == digests(made)
    (tmp_path / "plan.json").write_text(made.to_json(), encoding="utf-8")
    assert read_plan(tmp_path / "plan.json") == made


def test_a_pose_is_found_by_its_cell():
    made = plan([BASE], STUDY, yoga_poses(), with_pose="both")
    plain, *_, posed = made.cells()
    assert made.pose_of(plain) is None
    assert made.pose_of(posed).name == posed.pose


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variants": []}, "variants"),
        ({"variants": [BASE, Variant(name="Base")]}, "two rows are called 'Base'"),
        ({"variants": [both(BASE), Variant(name="base_cnet")]}, "two rows are called 'base_cnet'"),
        ({"prompts": bundled_set("study")}, "'sunglasses' has placeholders"),
        ({"poses": yoga_poses() * 2}, "two poses are called 'tree'"),
        ({"poses": [], "with_pose": "with"}, "add poses"),
        ({"seed": -1}, "seed"),
        ({"draws": 0}, "draws"),
        ({"with_pose": "sometimes"}, "with_pose"),
        (
            {"prompts": prompt_set_from_text("a photo\n" * 1000), "draws": 30},
            "more than 20,000 images",
        ),
    ],
)
def test_a_plan_that_cannot_be_drawn_is_an_error(change, message):
    parts = {"variants": [BASE], "prompts": STUDY, "poses": yoga_poses(), "with_pose": "both"}
    with pytest.raises(ComparisonError, match=message):
        plan(**{**parts, **change})


def test_unknown_keys_are_refused_and_named():
    data = {**plan([BASE], STUDY).model_dump(), "sede": 1}
    with pytest.raises(ComparisonError, match="sede"):
        plan_from_data(data)
    with pytest.raises(ComparisonError, match="plan"):
        plan_from_data([])


def test_a_plan_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        plan([BASE], STUDY).seed = 1


def test_the_largest_plan_is_made_at_once():
    many = prompt_set_from_text("a photo\n" * 1000)
    made = plan([Variant(name=f"v{i}", adapter=f"{i:064x}") for i in range(12)], many)
    assert len(made.cells()) == 12_000


def test_poses_and_digests_do_not_depend_on_the_process():
    code = (
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='x')['load_package']();"
        "from likeness.comparison.matrix import plan, Variant;"
        "from likeness.comparison.prompts import bundled_set;"
        "from likeness.comparison.keypoints import yoga_poses;"
        "p = plan([Variant(name='base')], bundled_set('study').filled('sks', 'man'),"
        " yoga_poses(), seed=5, with_pose='with');"
        "print(*[p.digest_of(c) for c in p.cells()]);"
        "print('torch' in sys.modules)"
    )
    door = str(Path(__file__).resolve().parents[2] / "__main__.py")
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, door],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    (output,) = outputs
    here = plan([BASE], STUDY, yoga_poses(), seed=5, with_pose="with")
    assert output.split() == [*digests(here).values(), "False"]


def test_two_variants_of_one_name_are_refused_though_their_rows_differ():
    rows = [Variant(name="r4", with_pose="without"), Variant(name="R4", with_pose="with")]
    with pytest.raises(ComparisonError, match="two variants are called 'R4'"):
        plan(rows, prompt_set_from_text("a dog"), yoga_poses())
