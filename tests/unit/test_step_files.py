"""Names of the files that a training saves on its way."""

import pytest
from likeness.trainers import step_files

RUN = "anna-0a1b2c3d"


@pytest.mark.parametrize("steps", [None, 50, 1_000_000])
@pytest.mark.parametrize("number", [1, 2, 12])
def test_a_files_name_tells_its_run(steps, number):
    file = f"{step_files.stem(RUN, steps, number)}.safetensors"
    assert step_files.run_name_of(file) == RUN
    assert step_files.is_intermediate(file) == (steps is not None)


def test_a_file_of_another_program_is_a_run_of_its_own():
    assert step_files.run_name_of("bob.safetensors") == "bob"
    assert not step_files.is_intermediate("bob-step.safetensors")


def test_of_one_step_the_file_saved_last_counts(tmp_path):
    names = [f"{step_files.stem(RUN, *key)}.safetensors"
             for key in ((50,), (50, 2), (50, 10), (100,), (None,), (None, 3))]  # fmt: skip
    for name in (*names, "anna-0a1b2c3d-stepsister.safetensors", "other-step000050.safetensors"):
        (tmp_path / name).touch()
    assert step_files.by_step(names) == {RUN: {50: names[2], 100: names[3]}}
    found = {path.name for path in step_files.intermediate_adapters(tmp_path, RUN)}
    assert found == set(names[:4])
